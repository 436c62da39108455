"""The walks over the wire with made-up times: the deciding halves, joined by a hub in memory.

The same walks with real processes are in tests/test_scenarios.py. Nothing here does I/O; a
message is lost, repeated or late because the test says so.
"""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass, field

import pytest

from sidecar.errors import CallError, Code
from sidecar.policy import Policy, Request
from sidecar.protocol import calls
from sidecar.protocol import envelope as wire
from sidecar.protocol.attach import Attachment, Attachments, Facts
from sidecar.protocol.effects import Effect
from sidecar.protocol.ids import uuid7
from sidecar.protocol.journal import JournalProtocol
from sidecar.protocol.limits import ATTACHMENT_SILENCE
from sidecar.protocol.names import Scope, Subject
from sidecar.protocol.outbox import Item, Outgoing, Rank
from sidecar.protocol.receipts import Conflict, FenceOutcome, New, ReceiptsProtocol, Repeat, State
from sidecar.protocol.spool import OnFull, SpoolProtocol
from sidecar.protocol.streams import STDOUT, ReceiveStream, SendStream
from sidecar.protocol.window import ReceiveWindow

ID = uuid7(millis=1_800_000_000_000, random=bytes(10))
FACTS = Facts(bytes(16), b"i" * 16, 1, 1, 0, {})


def attach(
    attachments: Attachments, controller: str, nonce: bytes, *, now: float, window: int = 1 << 22
) -> Attachment:
    request = wire.Attach(controller, nonce * 16, [1], [window, 128])
    return attachments.attach(request, Scope.FULL, FACTS, new_id=nonce * 16, now=now)


@dataclass
class Reader:
    """A controller that receives one stream: what it has, and its window."""

    stream: ReceiveStream
    window: ReceiveWindow
    got: bytearray = field(default_factory=bytearray)
    ended: bool = False

    def receive(self, message: Outgoing, *, now: float) -> list[wire.Envelope]:
        """Take one hub message; what is to be said to the sidecar."""
        head, *envelopes = wire.decode(message.data)
        assert isinstance(head, wire.Head)
        self.window.receive(head, now=now)
        for envelope in envelopes:
            if isinstance(envelope, wire.Data):
                fresh = self.stream.receive_data(envelope.offset, envelope.data, now=now)
                self.got += fresh
                self.stream.consume(len(fresh))
            elif isinstance(envelope, wire.End):
                self.stream.receive_end(envelope, now=now)
        answers = self.stream.answers()
        statement = self.window.statement(now=now + 1)
        return answers + ([statement] if statement else [])


class Program:
    """The sidecar's side of one stream: pumps made-up output into an attachment's outbox."""

    def __init__(self, output: bytes, credit: int) -> None:
        self.output = output
        self.stream = SendStream(ID, STDOUT, limit=credit)

    def pump(self, attachment: Attachment) -> None:
        """As many chunks as there is credit, room and window for."""
        lane = attachment.outbox.lane(Rank.BULK, lambda: None)
        while lane.has_room and self.stream.allowance and self.stream.next < len(self.output):
            at = self.stream.next
            data = self.output[at : at + min(60_000, self.stream.allowance)]
            self.stream.sent(len(data))
            lane.offer(Item(wire.encode_data(ID, STDOUT, at, data)))
        if self.stream.next == len(self.output) and lane.has_room:
            lane.offer(Item(wire.encode(self.stream.end(hashlib.sha256(self.output).digest()))))

    def hear(self, attachment: Attachment, answers: list[wire.Envelope], *, now: float) -> None:
        for answer in answers:
            if isinstance(answer, wire.Window):
                attachment.outbox.window.receive(answer)
                attachment.outbox.receive_window_totals(now=now)
            elif isinstance(answer, wire.Credit):
                self.stream.receive_credit(answer)


def messages(attachment: Attachment, *, now: float) -> deque[Outgoing]:
    """All hub messages that may go now."""
    ready: deque[Outgoing] = deque()
    while (message := attachment.outbox.next_message(now=now, urgent_only=False)) is not None:
        ready.append(message)
    return ready


def run_until(program: Program, attachment: Attachment, reader: Reader, size: int) -> float:
    """Pump until the reader has `size` bytes, or everything; the time that was then."""
    now = 100.0
    for _ in range(10_000):
        if len(reader.got) >= size or reader.stream.ended:
            return now
        now += 0.01
        program.pump(attachment)
        for message in messages(attachment, now=now):
            program.hear(attachment, reader.receive(message, now=now), now=now)
    raise AssertionError(f"stuck at {len(reader.got)} bytes")


def test_walk_1_a_stream_goes_on_at_its_offset_after_a_refused_recovery() -> None:
    output = bytes(range(256)) * 20_000  # 5 MB
    sidecar = Attachments(Subject("demo"))
    first = attach(sidecar, "me", b"1", now=100.0)
    program = Program(output, credit=1 << 20)
    stream = ReceiveStream(ID, STDOUT, window=1 << 20)
    reader = Reader(stream, ReceiveWindow(1 << 22, 128, now=100.0))
    now = run_until(program, first, reader, 2_000_000)
    assert len(reader.got) < len(output)

    program.pump(first)
    lost = messages(first, now=now)  # acknowledged by the hub, never delivered
    assert lost
    second = attach(sidecar, "me", b"2", now=now)
    received, start, limit = stream.resume()
    assert not program.stream.resume(received, start, limit)  # the digest goes on, too
    reader.window = ReceiveWindow(1 << 22, 128, now=now)
    run_until(program, second, reader, len(output) + 1)  # and its end
    assert reader.got == output
    ended = stream.ended
    assert ended is not None
    assert (ended.start, ended.sha256) == (0, hashlib.sha256(output).digest())

    window = second.outbox.window
    now += 60.0
    statement = reader.window.statement(now=now)
    assert statement is not None
    window.receive(statement)
    assert (window.bytes, window.messages) == (window.seen_bytes, window.seen_messages)
    assert reader.window.lost_messages == 0
    assert window.room() == 1 << 22


def test_walk_1_a_window_leaks_nothing_when_messages_are_lost() -> None:
    attachment = attach(Attachments(Subject("demo")), "me", b"1", now=0.0, window=1 << 20)
    window = ReceiveWindow(1 << 20, 128, now=0.0)
    for _ in range(100):  # ten times what the window holds, and every second message is lost
        for is_lost in (True, False):
            lane = attachment.outbox.lane(Rank.BULK, lambda: None)
            lane.offer(Item(wire.encode_data(ID, STDOUT, 0, bytes(50_000))))
            message = attachment.outbox.next_message(now=0.0, urgent_only=False)
            assert message is not None
            attachment.outbox.close_lane(lane)
            if not is_lost:
                head, _ = wire.decode(message.data)
                assert isinstance(head, wire.Head)
                window.receive(head, now=0.0)
        statement = window.statement(now=1.0)
        assert statement is not None
        attachment.outbox.window.receive(statement)
        attachment.outbox.receive_window_totals(now=1.0)
    assert window.lost_messages == 100


def test_walk_2_nothing_runs_again_and_the_old_attachment_lapses() -> None:
    sidecar = Attachments(Subject("demo"))
    receipts = ReceiptsProtocol()
    journal = JournalProtocol(bytes(16), max_bytes=1 << 20, max_events=1000, max_readers=2)
    old = attach(sidecar, "me", b"1", now=0.0)
    journal.open_reader(None, after=0, series=None)
    call = wire.Call(ID, "exec.run", wire.dumps({"shell": "true"}))
    assert receipts.begin(ID, calls.call_digest(call), now_wall=1.8e9) == New()
    receipts.started(ID)

    new = attach(sidecar, "me", b"2", now=60.0)  # killed at 10, back at 60
    journal.open_reader(None, after=0, series=None)
    receipt = receipts.get(ID)
    assert receipt is not None and receipt.state is State.STARTED
    assert receipts.begin(ID, calls.call_digest(call), now_wall=1.8e9) == Repeat(
        State.STARTED, None
    )
    receipts.end(ID, b"the answer", now_wall=1.8e9)
    assert receipts.begin(ID, calls.call_digest(call), now_wall=1.8e9) == Repeat(
        State.ENDED, b"the answer"
    )

    assert sidecar.lapsed(now=ATTACHMENT_SILENCE - 1) == []
    assert sidecar.lapsed(now=ATTACHMENT_SILENCE) == [old]
    sidecar.end(old)
    journal.reader_closed()
    assert sidecar.find(old.id) is None
    assert sidecar.all() == [new]
    journal.open_reader(None, after=0, series=None)  # its place is free
    with pytest.raises(CallError) as caught:
        journal.open_reader(None, after=0, series=None)
    assert caught.value.code is Code.LIMIT


def test_walk_4_a_shut_window_stops_its_own_attachment_only() -> None:
    sidecar = Attachments(Subject("demo"))
    stalled = attach(sidecar, "stalled", b"1", now=0.0, window=1 << 20)
    other = attach(sidecar, "other", b"2", now=0.0)
    program = Program(bytes(5_000_000), credit=1 << 30)
    sent = 0
    for _ in range(200):
        program.pump(stalled)
        sent += len(messages(stalled, now=1.0))
    assert sent > 1
    assert stalled.outbox.is_held
    assert stalled.outbox.window.bytes <= 1 << 20
    assert stalled.outbox.window.blocked(2.0) is None
    assert stalled.outbox.window.blocked(3.0) == wire.Blocked(offset=stalled.outbox.window.bytes)

    other.outbox.control(wire.Accepted(ID))
    (message,) = messages(other, now=3.0)
    assert wire.decode(message.data)[1:] == [wire.Accepted(ID)]


@pytest.mark.parametrize("on_full, room", [(OnFull.DROP, 50), (OnFull.HOLD, 0)])
def test_walk_4_a_held_program_goes_on_after_30_seconds_as_it_was_told(
    on_full: OnFull, room: int
) -> None:
    spool = SpoolProtocol(head=100, tail=50, hold_time=30.0, on_full=on_full)
    spool.follow(0, now=0.0)
    for place in spool.accept(150, now=1.0):
        spool.stored(place.offset, place.size)
    assert spool.room(now=1.0) == 0
    assert spool.room(now=30.9) == 0
    assert spool.room(now=31.0) == room
    spool.progress(150, now=32.0)
    assert spool.room(now=32.0) == 50
    assert spool.missing(150) == 0


REST = [
    pytest.param(Effect.EXEC, Scope.FULL, True, True, id="named"),
    pytest.param(Effect.EXEC, Scope.FULL, False, False, id="not-named"),
    pytest.param(Effect.WRITE, Scope.FULL, False, False, id="writing-not-named"),
    pytest.param(Effect.READ, Scope.FULL, False, True, id="reading-not-named"),
    pytest.param(Effect.EXEC, Scope.WATCH, True, False, id="watching"),
]


@pytest.mark.parametrize("effect, scope, is_addressed, allowed", REST)
def test_walk_8_who_is_not_named_serves_only_what_reads(
    effect: Effect, scope: Scope, is_addressed: bool, allowed: bool
) -> None:
    decision = Policy().decide(Request("x", effect, scope, is_addressed))
    assert decision.allowed is allowed
    if not allowed:
        assert decision.code is Code.FORBIDDEN


def test_walk_8_of_two_sidecars_each_has_receipts_of_its_own() -> None:
    call = wire.Call(ID, "sidecar.ping", b"\xa0", reply="platform")
    other = wire.Call(ID, "sidecar.ping", b"\xa1\x00\x00", reply="platform")
    for receipts in (ReceiptsProtocol(), ReceiptsProtocol()):
        assert receipts.begin(ID, calls.call_digest(call), now_wall=1.8e9) == New()
        assert receipts.begin(ID, calls.call_digest(other), now_wall=1.8e9) == Conflict()
        assert receipts.fence(ID, now_wall=1.8e9) is FenceOutcome.ACCEPTED


def test_an_id_of_last_week_is_new_as_long_as_nothing_was_forgotten() -> None:
    receipts = ReceiptsProtocol(max_receipts=1)
    last_week = uuid7(millis=1_800_000_000_000 - 7 * 86_400_000, random=bytes(10))
    assert receipts.begin(last_week, b"", now_wall=1.8e9) == New()
    receipts.end(last_week, None, now_wall=1.8e9)
    assert receipts.begin(ID, b"", now_wall=1.8e9) == New()  # for its sake the first is forgotten
    assert calls.expired(last_week).code is Code.EXPIRED_ID
    assert type(receipts.begin(last_week, b"", now_wall=1.8e9)).__name__ == "Expired"
