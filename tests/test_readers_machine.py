"""Events from the journal to whoever reads them, through anything that happens on the way.

The halves are the real ones: a journal on disk, the sidecar's exchange with its readers, and the
client's stream of events. Between them is a hub made of two lists, and what happens there is
drawn by hypothesis: either connection is lost, with or without what was under way, core is
killed, old events are evicted, the reader reads slowly. What arrives is what was appended, once
each and in order; whatever is missing is named by a gap.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from sidecar.client import Controller, Cursor, Event, Gap
from sidecar.clock import ManualClock
from sidecar.durable.journal import DiskJournal, open_journal
from sidecar.durable.writer import LogWriter
from sidecar.exchange import Exchange
from sidecar.protocol import envelope as wire
from sidecar.protocol.attach import Identity
from sidecar.protocol.ids import uuid7
from sidecar.protocol.names import Scope, Subject
from sidecar.protocol.publish import Outcome, Publish
from sidecar.protocol.webpubsub.frames import PROTOBUF_SUBPROTOCOL, Message
from sidecar.tokens import FixedToken

TURNS = 40  # of the event loop, after which nobody has anything to do any more
BOOT = b"b" * 16
ARRIVED = st.integers(0, 3)


class NoCalls:
    """In place of the dispatcher: this machine is about events."""

    durable = False

    def attachment_ended(self, attachment: Any) -> None: ...
    def sweep(self, *, now: float) -> None: ...
    def next_deadline(self) -> None: ...


class Readers(RuleBasedStateMachine):
    """A journal of ten events in segments of a few, and one reader."""

    def __init__(self) -> None:
        super().__init__()
        self.exits = ExitStack()
        self.portal = self.exits.enter_context(start_blocking_portal())
        self.folder = Path(self.exits.enter_context(tempfile.TemporaryDirectory()))
        self.clock = ManualClock()
        self.lives = 0
        self.emitted = 0
        self.truth: dict[int, int] = {}  # what was appended, by number
        self.arrived: list[Event | Gap] = []
        self.to_client: deque[Publish] = deque()  # what the hub has taken, and not delivered
        self.to_sidecar: deque[Publish] = deque()
        self.portal.call(self.live)
        self.running = self.portal.start_task_soon(self.exchange.run)
        self.do(self.say_hello)
        self.do(self.read)

    def do(self, step: Callable[..., Any], *arguments: Any) -> None:
        """Everything happens in the event loop, and then everybody has had a turn."""

        async def run() -> None:
            step(*arguments)
            for _ in range(TURNS):
                await anyio.lowlevel.checkpoint()

        self.portal.call(run)

    async def live(self) -> None:
        """A sidecar, the first or the next one."""
        self.lives += 1
        self.writer = LogWriter(sync_delay=0.0)
        self.journal: DiskJournal = await open_journal(
            self.folder / f"life-{self.lives}",
            self.writer,
            self.clock,
            new_series=lambda: uuid7(millis=self.lives, random=bytes(10)),
            max_events=10,
            segment_bytes=200,
            tail_bytes=300,
            boot=BOOT,
        )
        incarnation = uuid7(millis=1000 + self.lives, random=bytes(10))
        identity = Identity(Subject("r"), incarnation, 0, "in-process", "shared")
        self.exchange = Exchange(identity, self.clock)
        self.exchange.begin(NoCalls(), self.journal)  # type: ignore[arg-type]

    def say_hello(self) -> None:
        self.exchange.channel_opened(fresh=True, now=self.clock.now())

    def read(self) -> None:
        provider = FixedToken("ws://localhost/client/hubs/h", "token")
        self.controller = Controller(
            provider, "c", scope=Scope.FULL, subprotocol=PROTOBUF_SUBPROTOCOL, clock=self.clock
        )
        self.stream = self.controller.events("r", after=Cursor(), reader="platform")

    # what is appended and what is read ---------------------------------------------------------

    @rule(count=st.integers(1, 12))
    def emit(self, count: int) -> None:
        async def emit() -> None:
            for _ in range(count):
                self.emitted += 1
                seq = self.journal.append(self.encode)
                self.truth[seq] = self.emitted
            await self.until_written()

        self.portal.call(emit)

    def encode(self, seq: int) -> bytes:
        return wire.encode(wire.Event(seq, 0, "number", None, self.emitted))

    async def until_written(self) -> None:
        while self.journal.written < self.journal.last:  # noqa: ASYNC110
            await anyio.sleep(0.0005)

    @rule(count=st.integers(1, 10))
    def the_reader_takes(self, count: int) -> None:
        async def take() -> None:
            for _ in range(min(count, len(self.stream._queue))):
                item = await self.stream.receive()
                self.arrived.append(item)
                if isinstance(item, Gap):
                    assert item.last is not None
                    assert item.last < self.journal.first, "it could still be had"

        self.portal.call(take)

    # what the hub does -------------------------------------------------------------------------

    @rule()
    def the_hub_takes_a_message_of_the_sidecar(self) -> None:
        self.do(self.take, self.exchange, self.to_client)

    @rule()
    def the_hub_takes_a_message_of_the_controller(self) -> None:
        self.do(self.take, self.controller, self.to_sidecar)

    def take(self, source: Exchange | Controller, queue: deque[Publish]) -> None:
        publish = source.next_publish(now=self.clock.now(), urgent_only=False)
        if publish is not None:
            queue.append(publish)

    @rule(times=st.integers(1, 2))
    def a_message_arrives_at_the_controller(self, times: int) -> None:
        self.arrive(self.to_client, times, self.controller)

    @rule(times=st.integers(1, 2))
    def a_message_arrives_at_the_sidecar(self, times: int) -> None:
        self.arrive(self.to_sidecar, times, self.exchange)

    def arrive(self, queue: deque[Publish], times: int, receiver: Exchange | Controller) -> None:
        if not queue:
            return
        publish = queue.popleft()
        self.do(publish.settled, Outcome.ACKED)
        for _ in range(times):
            self.do(self.deliver, receiver, publish)

    def deliver(self, receiver: Exchange | Controller, publish: Publish) -> None:
        message = Message("group", publish.data, publish.group)
        receiver.channel_message(message, now=self.clock.now())

    @rule(arrived=ARRIVED)
    def the_sidecar_loses_its_connection(self, arrived: int) -> None:
        """Of what it published some has arrived, and nothing was acknowledged; what was on its
        way to it is gone, and whoever sent that believes that the hub has it."""
        self.lose(self.to_client, arrived, self.controller)
        self.forget(self.to_sidecar)
        self.do(self.say_hello)

    @rule(arrived=ARRIVED)
    def the_controller_loses_its_connection(self, arrived: int) -> None:
        self.lose(self.to_sidecar, arrived, self.exchange)
        self.forget(self.to_client)
        self.do(self.attach_anew)

    def attach_anew(self) -> None:
        self.controller.channel_opened(fresh=True, now=self.clock.now())

    def lose(self, queue: deque[Publish], arrived: int, receiver: Exchange | Controller) -> None:
        under_way = list(queue)
        queue.clear()
        for publish in under_way[:arrived]:
            self.do(self.deliver, receiver, publish)
        self.do(lambda: [publish.settled(Outcome.LOST) for publish in under_way])

    def forget(self, queue: deque[Publish]) -> None:
        under_way = list(queue)
        queue.clear()
        self.do(lambda: [publish.settled(Outcome.ACKED) for publish in under_way])

    @rule(seconds=st.sampled_from([1.0, 31.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.do(self.exchange._on_deadline)
        self.do(self.stream._on_deadline)

    @rule(unwritten=st.integers(0, 3))
    def core_is_killed(self, unwritten: int) -> None:
        """What it had written is there for the next one, who gives the numbers of what was not
        written to other events. The hub still delivers what it has."""
        series, last = self.journal.series, self.journal.last
        self.portal.call(self.copy)
        self.portal.call(self.append_unseen, unwritten)
        self.running.cancel()
        self.portal.call(self.die)
        self.to_sidecar.clear()
        self.to_client = deque(
            Publish(one.group, one.data, one.ttl, lambda _: None, one.urgent)
            for one in self.to_client
        )
        self.portal.call(self.live)
        assert (self.journal.series, self.journal.last) == (series, last)
        self.running = self.portal.start_task_soon(self.exchange.run)
        self.do(self.say_hello)

    async def copy(self) -> None:
        for lane in (self.writer.writes, self.writer.syncs):
            while lane._is_busy or lane._due:  # noqa: ASYNC110
                await anyio.sleep(0.0005)
        shutil.copytree(self.folder / f"life-{self.lives}", self.folder / f"life-{self.lives + 1}")

    async def append_unseen(self, count: int) -> None:
        for _ in range(count):
            self.journal.append(lambda seq: wire.encode(wire.Event(seq, 0, "unseen", None, seq)))

    async def die(self) -> None:
        """The threads and descriptors of the dead one; its folder is nobody's any more."""
        await self.journal.aclose()
        await self.writer.aclose()

    # what holds --------------------------------------------------------------------------------

    def teardown(self) -> None:
        """Over a good hub everything comes to the reader, whatever happened before."""
        try:
            self.emit(1)
            for _ in range(200):
                if self.stream.cursor.seq == self.journal.last:
                    break
                self.pump()
            self.check()
        finally:
            self.running.cancel()
            self.portal.call(self.die)
            self.exits.close()

    def pump(self) -> None:
        self.the_hub_takes_a_message_of_the_controller()
        self.the_hub_takes_a_message_of_the_sidecar()
        while self.to_sidecar:
            self.a_message_arrives_at_the_sidecar(1)
        while self.to_client:
            self.a_message_arrives_at_the_controller(1)
        self.the_reader_takes(100)
        self.time_passes(1.0)

    def check(self) -> None:
        """Each number is there once, with what was appended under it, or a gap names it."""
        at = 0
        for item in self.arrived:
            if isinstance(item, Gap):
                assert item.last is not None
                assert (item.first, item.why) == (at + 1, "evicted")
                at = item.last
            else:
                assert item.seq == at + 1
                assert item.data == self.truth[item.seq]
                at = item.seq
        assert at == self.journal.last, "it is stuck"


TestReaders = pytest.mark.slow(Readers.TestCase)
TestReaders.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
