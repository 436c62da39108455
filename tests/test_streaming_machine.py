"""A sender and a receiver through anything that connections do, against plain bytes.

The halves are the real ones, with their tasks; the wire between them is made of lists, and what
happens on it is drawn by hypothesis: messages arrive late, twice or never, and whether somebody
is told of it depends on whose connection was lost. A source forgets its oldest bytes meanwhile.
"""

from __future__ import annotations

from collections import deque
from contextlib import ExitStack
from random import Random
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sidecar.clock import ManualClock
from sidecar.protocol import envelope as wire
from sidecar.protocol.outbox import Outbox, Outgoing
from sidecar.protocol.streams import Piece, ReceiveStream, SendStream
from sidecar.protocol.window import SendWindow
from sidecar.streaming import Receiver, Sender

ID = b"i" * 16
CONTENT = Random(4).randbytes(5000)
CHUNK, WINDOW = 300, 1000
TURNS = 20  # of the event loop, after which nobody has anything to do any more


class Forgetful:
    """A source that loses its oldest bytes, as the spool of a program does."""

    def __init__(self) -> None:
        self.gone = 0

    async def read(self, offset: int, size: int) -> Piece:
        await anyio.lowlevel.checkpoint()
        at = max(offset, self.gone)
        data = CONTENT[at : at + size]
        return Piece(at, data, ended=at + len(data) == len(CONTENT))

    def release(self, offset: int) -> None:
        """It forgets when it has to, not when it may."""

    async def aclose(self) -> None:
        """Nothing is held."""


class Stream(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.exits = ExitStack()
        self.portal = self.exits.enter_context(anyio.from_thread.start_blocking_portal())
        self.clock = ManualClock()
        self.source = Forgetful()
        self.there: deque[Outgoing] = deque()  # taken by the hub, not seen by the receiver
        self.back: deque[wire.Envelope] = deque()
        self.do(self.begin)
        self.running = self.portal.start_task_soon(self.sender.run)

    def do(self, step: Any, *arguments: Any) -> None:
        """Everything happens in the event loop, and then everybody has had a turn."""

        async def run() -> None:
            step(*arguments)
            for _ in range(TURNS):
                await anyio.lowlevel.checkpoint()

        self.portal.call(run)

    def begin(self) -> None:
        stream = SendStream(ID, 1, limit=WINDOW)
        self.sender = Sender(stream, self.source, clock=self.clock, wake=lambda: None)
        self.receive_from(0)
        self.attach()

    def attach(self) -> None:
        self.outbox = Outbox("out.r.c", SendWindow(b"a" * 16, 1 << 40, 1 << 40))
        self.sender.bind(self.outbox)

    def receive_from(self, offset: int) -> None:
        stream = ReceiveStream(ID, 1, window=WINDOW, start=offset)
        self.receiver = Receiver(stream, send=self.back.append, clock=self.clock)
        self.first, self.got = offset, b""
        self.has_ended = False

    # what the wire does -----------------------------------------------------------------------

    @rule()
    def the_hub_takes_a_message(self) -> None:
        self.do(self.take)

    def take(self) -> bool:
        self.outbox.flow.chunk = CHUNK
        message = self.outbox.next_message(now=self.clock.now(), urgent_only=False)
        if message is None:
            return False
        self.outbox.window.seen_bytes = self.outbox.window.bytes
        self.there.append(message)
        return True

    @rule(times=st.integers(1, 2))
    def a_message_arrives(self, times: int) -> None:
        if not self.there:
            return
        message = self.there.popleft()
        for _ in range(times):
            self.do(self.feed, message)

    def feed(self, message: Outgoing) -> None:
        for item in wire.decode(message.data)[1:]:
            self.receiver.feed(item)  # type: ignore[arg-type]

    @rule()
    def an_answer_arrives(self) -> None:
        if self.back:
            self.do(self.answer)

    def answer(self) -> None:
        envelope = self.back.popleft()
        if isinstance(envelope, wire.Credit | wire.Rewind | wire.Reset):
            self.sender.receive(envelope)

    @rule()
    def the_answers_are_lost(self) -> None:
        self.back.clear()

    @rule(arrived=st.integers(0, 3))
    def the_senders_connection_is_lost(self, arrived: int) -> None:
        """Of what was under way some had arrived; nothing of it was acknowledged."""
        under_way = list(self.there)
        self.there.clear()
        for message in under_way[:arrived]:
            self.do(self.feed, message)
        self.do(lambda: [message.lost() for message in under_way])

    @rule(arrived=st.integers(0, 3))
    def the_receivers_connection_is_lost(self, arrived: int) -> None:
        """The hub has acknowledged all that was under way, so nobody tells the sender. The
        receiver attaches anew and asks."""
        for message in list(self.there)[:arrived]:
            self.do(self.feed, message)
        self.there.clear()
        self.back.clear()
        self.do(self.take_up)

    def take_up(self) -> None:
        self.attach()
        self.sender.resume(*self.receiver.stream.resume())

    @rule(behind=st.integers(0, 2000))
    def another_receiver_takes_over(self, behind: int) -> None:
        """One that knows an offset, from an earlier life."""
        if self.sender.is_finished:
            return
        offset = max(0, min(self.sender.stream.received, self.sender.stream.high) - behind)
        self.there.clear()
        self.back.clear()
        self.receive_from(offset)
        self.do(self.take_up)

    @rule(arrived=st.integers(0, 3))
    def the_sender_is_killed(self, arrived: int) -> None:
        """Another process goes on from the same source, and knows nothing of what was sent."""
        for message in list(self.there)[:arrived]:
            self.do(self.feed, message)
        self.there.clear()
        self.back.clear()
        if self.receiver.stream.ended is None:
            self.running.cancel()
            self.do(self.go_on)
            self.running = self.portal.start_task_soon(self.sender.run)

    def go_on(self) -> None:
        stream = SendStream(ID, 1, limit=WINDOW, sent=len(CONTENT))
        self.sender = Sender(stream, self.source, clock=self.clock, wake=lambda: None)
        self.receiver.renew()
        self.take_up()

    @rule()
    def a_second_passes(self) -> None:
        self.do(self.clock.advance, 1.0)
        self.do(self.sender._bell.ring)

    # what the ends do -------------------------------------------------------------------------

    @rule(size=st.integers(1, 800))
    def the_source_forgets(self, size: int) -> None:
        self.source.gone = min(self.source.gone + size, len(CONTENT))

    @rule()
    def the_receiver_consumes(self) -> None:
        self.portal.call(self.consume)

    async def consume(self) -> None:
        while self.receiver.is_ready and not self.has_ended:
            chunk = await self.receiver.receive()
            self.got += chunk
            self.has_ended = not chunk

    # what holds -------------------------------------------------------------------------------

    @invariant()
    def what_arrived_is_what_was_sent_without_what_was_skipped(self) -> None:
        at, parts = self.first, []
        for begin, end in self.receiver.stream.skipped:
            parts.append(CONTENT[at:begin])
            at = end
        parts.append(CONTENT[at : self.receiver.stream.received])
        assert b"".join(parts).startswith(self.got)

    @invariant()
    def nothing_was_skipped_that_the_source_had(self) -> None:
        for _, end in self.receiver.stream.skipped:
            assert end <= self.source.gone

    @invariant()
    def nothing_broke_off(self) -> None:
        assert self.receiver.error is None
        assert self.sender.error is None

    def teardown(self) -> None:
        """On a good wire it now comes to its end, whatever happened before."""
        try:
            self.the_receivers_connection_is_lost(0)
            for _ in range(500):
                if self.has_ended and (self.sender.is_finished or not self.back):
                    break
                self.do(self.take)
                while self.there:
                    self.a_message_arrives(1)
                self.the_receiver_consumes()
                while self.back:
                    self.an_answer_arrives()
                self.a_second_passes()
            assert self.has_ended, "it is stuck"
            skipped = sum(end - begin for begin, end in self.receiver.stream.skipped)
            assert len(self.got) == len(CONTENT) - self.first - skipped
            self.what_arrived_is_what_was_sent_without_what_was_skipped()
        finally:
            self.running.cancel()
            self.exits.close()


TestStream = pytest.mark.slow(Stream.TestCase)
TestStream.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
