"""A sender and a receiver joined by a pump in memory that loses, repeats and goes back."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.clock import ManualClock
from sidecar.errors import CallError, Code, Invalid
from sidecar.protocol import envelope as wire
from sidecar.protocol.outbox import Outbox, Outgoing
from sidecar.protocol.streams import Piece, ReceiveStream, SendStream
from sidecar.protocol.window import SendWindow
from sidecar.streaming import BytesSource, Receiver, Sender, Source

ID = b"i" * 16
A = b"a" * 16
KIB = 1024


def content(size: int) -> bytes:
    return Random(size).randbytes(size)


class Spool:
    """A source that forgets its oldest bytes, and says what was released."""

    def __init__(self, data: bytes, *, gone: int = 0) -> None:
        self.data = data
        self.gone = gone
        self.released = 0
        self.is_closed = False

    async def read(self, offset: int, size: int) -> Piece:
        await anyio.lowlevel.checkpoint()
        at = max(offset, self.gone)
        data = self.data[at : at + size]
        return Piece(at, data, ended=at + len(data) == len(self.data))

    def release(self, offset: int) -> None:
        self.released = offset

    async def aclose(self) -> None:
        self.is_closed = True


class Live:
    """A source that grows, and learns of its end only when it is asked once more."""

    def __init__(self) -> None:
        self.data = b""
        self.is_ended = False
        self.grown = anyio.Event()

    def add(self, data: bytes = b"", *, end: bool = False) -> None:
        self.data += data
        self.is_ended = end
        self.grown.set()
        self.grown = anyio.Event()

    async def read(self, offset: int, size: int) -> Piece:
        while offset >= len(self.data):
            if self.is_ended:
                return Piece(offset, b"", ended=True)
            await self.grown.wait()
        return Piece(offset, self.data[offset : offset + size])

    def release(self, offset: int) -> None:
        """Everything stays."""

    async def aclose(self) -> None:
        """Nothing is held."""


class Wire:
    """A sender's outbox, and the pump that carries its messages to a receiver and back."""

    def __init__(self, source: Source, *, window: int = 64 * KIB, credit: int | None = None):
        self.clock = ManualClock()
        self.window = window
        self.sender = Sender(
            SendStream(ID, 1, limit=window if credit is None else credit),
            source,
            clock=self.clock,
            wake=self.wake,
        )
        self.outbox = self.new_outbox()
        self.receiver = self.new_receiver()
        self.answers: list[wire.Envelope] = []
        self.sent: list[wire.Any_] = []
        # How often a message arrives; at 0 its loss is told at once, at -1 by somebody later.
        self.fate: Callable[[Outgoing], int] = lambda _: 1
        self.is_cut = False
        self.hears = True  # the sender hears the receiver
        self._woken = anyio.Event()

    def wake(self) -> None:
        self._woken.set()

    def new_outbox(self) -> Outbox:
        self.outbox = Outbox("out.r.c", SendWindow(A, 1 << 40, 1 << 40))
        self.outbox.flow.chunk = 8 * KIB
        self.sender.bind(self.outbox)
        return self.outbox

    def new_receiver(self, start: int = 0) -> Receiver:
        stream = ReceiveStream(ID, 1, window=self.window, start=start)
        self.receiver = Receiver(stream, send=self.answer, clock=self.clock)
        return self.receiver

    def answer(self, envelope: wire.Envelope) -> None:
        self.answers.append(envelope)
        self.wake()

    async def pump(self) -> None:
        while True:
            if not self.step():
                self._woken = anyio.Event()
                await self._woken.wait()
            await anyio.lowlevel.checkpoint()

    def step(self) -> bool:
        """Carry one message each way; False if there was none."""
        if self.is_cut:
            return False
        answers: list[wire.Envelope] = []
        if self.hears:
            answers, self.answers = self.answers, []
        for envelope in answers:
            if isinstance(envelope, wire.Credit | wire.Rewind | wire.Reset):
                self.sender.receive(envelope)
        message = self.outbox.next_message(now=self.clock.now(), urgent_only=False)
        if message is None:
            return bool(answers)
        self.outbox.flow.chunk = 8 * KIB
        self.outbox.window.seen_bytes = self.outbox.window.bytes
        times = self.fate(message)
        if times == 0:
            message.lost()
        for _ in range(times):
            for item in wire.decode(message.data)[1:]:
                self.sent.append(item)
                assert isinstance(
                    item, wire.Data | wire.Skip | wire.End | wire.Blocked | wire.Reset
                )
                self.receiver.feed(item)
        return True

    def a_second_passes(self) -> None:
        """The clock moves, and credit that is no news makes the sender look at it."""
        self.clock.advance(1.0)
        self.sender.receive(wire.Credit(ID, 1, 0, 0))

    def of(self, kind: type[wire.Any_]) -> list[wire.Any_]:
        return [item for item in self.sent if isinstance(item, kind)]


@asynccontextmanager
async def joined(
    source: Source, *, window: int = 64 * KIB, credit: int | None = None
) -> AsyncIterator[Wire]:
    pair = Wire(source, window=window, credit=credit)
    async with anyio.create_task_group() as group:
        group.start_soon(pair.sender.run)
        group.start_soon(pair.pump)
        with anyio.fail_after(20):
            yield pair
        group.cancel_scope.cancel()


async def received(pair: Wire) -> bytes:
    return b"".join([chunk async for chunk in pair.receiver])


async def settled() -> None:
    """Until nobody has anything to do."""
    for _ in range(50):
        await anyio.lowlevel.checkpoint()


# on a good wire -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 100, 8 * KIB, 64 * KIB, 64 * KIB + 1, 1_000_000])
async def test_all_bytes_arrive_and_the_digest_is_theirs(size: int) -> None:
    data = content(size)
    async with joined(BytesSource(data)) as pair:
        assert await received(pair) == data
        await pair.sender.finished()
    assert pair.sender.error is None
    assert (pair.sender.final, pair.sender.sha256) == (size, hashlib.sha256(data).digest())
    assert len(pair.of(wire.End)) == 1


async def test_a_source_that_finds_its_end_late_ends_with_no_credit_left() -> None:
    source = Live()
    async with joined(source, window=100) as pair:
        source.add(content(100))
        first = await pair.receiver.receive()
        source.add(end=True)
        assert first + await received(pair) == content(100)
        await pair.sender.finished()


async def test_a_source_that_grows_is_followed() -> None:
    source = Live()
    async with joined(source) as pair:
        for n in range(5):
            source.add(b"%d\n" % n)
            assert await pair.receiver.receive() == b"%d\n" % n
        source.add(end=True)
        assert await pair.receiver.receive() == b""
        assert await pair.receiver.receive() == b""  # as often as one asks


async def test_no_more_is_sent_than_the_receiver_has_room_for() -> None:
    async with joined(BytesSource(content(1_000_000)), window=20_000) as pair:
        await settled()
        assert pair.receiver.stream.waiting == 20_000
        assert pair.sender.stream.next == 20_000
        await pair.receiver.receive()
        await pair.receiver.receive()
        await settled()
        assert pair.receiver.stream.waiting == 20_000


async def test_without_credit_the_sender_says_so_after_a_second() -> None:
    async with joined(BytesSource(content(100)), credit=0, window=1000) as pair:
        await settled()
        assert pair.sent == []
        pair.a_second_passes()
        assert await received(pair) == content(100)  # `blocked` brought the credit
    assert pair.sent[0] == wire.Blocked(ID, 1, 0)


async def test_credit_that_was_lost_is_restated() -> None:
    async with joined(BytesSource(content(200)), window=100) as pair:
        await settled()
        chunk = await pair.receiver.receive()
        assert pair.answers == [wire.Credit(ID, 1, 100, 200)]
        pair.answers.clear()
        pair.a_second_passes()
        assert chunk + await received(pair) == content(200)


async def test_all_chunks_that_wait_are_had_at_once() -> None:
    async with joined(BytesSource(content(40 * KIB))) as pair:
        await settled()
        chunks = await pair.receiver.receive_all()
        assert b"".join(chunks) == content(40 * KIB)
        assert len(chunks) == 5
        assert await pair.receiver.receive_all() == []


async def test_small_chunks_that_wait_are_joined() -> None:
    pair = Wire(BytesSource(b""))
    for at in range(10_000):
        pair.receiver.feed(wire.Data(ID, 1, at, b"x"))
    assert [len(chunk) for chunk in await pair.receiver.receive_all()] == [4096, 4096, 1808]


async def test_what_the_receiver_has_is_released_by_the_source() -> None:
    source = Spool(content(50 * KIB))
    async with joined(source, window=16 * KIB) as pair:
        await received(pair)
        await pair.sender.finished()
    assert source.released == 50 * KIB
    assert source.is_closed


# loss and repetition --------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
async def test_a_bad_wire_changes_no_byte(seed: int) -> None:
    """Messages come never, once or twice; what was lost is told some time later."""
    random = Random(seed)
    data = content(300_000)
    late: list[Outgoing] = []

    def fate(message: Outgoing) -> int:
        if random.random() < 0.3:
            for lost in late:
                lost.lost()
            late.clear()
        if random.random() < 0.2:
            late.append(message)
            return -1
        return random.choice([1, 1, 1, 2])

    async def tell_at_last(pair: Wire) -> None:
        while not pair.sender.is_finished:
            await settled()
            for lost in late:
                lost.lost()
            late.clear()

    async with joined(BytesSource(data), window=40_000) as pair:
        pair.fate = fate
        async with anyio.create_task_group() as group:
            group.start_soon(tell_at_last, pair)
            assert await received(pair) == data
        await pair.sender.finished()


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(0, 60_000),
    window=st.integers(1000, 40_000),
    fates=st.lists(st.sampled_from([0, 1, 1, 2]), max_size=40),
)
def test_any_loss_and_repetition_changes_no_byte(size: int, window: int, fates: list[int]) -> None:
    async def run() -> None:
        data = content(size)
        coming = iter(fates)
        async with joined(BytesSource(data), window=window) as pair:
            pair.fate = lambda _: next(coming, 1)
            assert await received(pair) == data
            await pair.sender.finished()

    anyio.run(run)


async def test_losses_that_are_told_one_by_one_lose_nothing() -> None:
    """The second loss is told when the first chunk is queued anew: it must not drop that one."""
    data = content(24 * KIB)
    async with joined(BytesSource(data)) as pair:
        lost: list[Outgoing] = []

        def fate(message: Outgoing) -> int:
            lost.append(message)
            pair.is_cut = len(lost) == 2
            return -1 if len(lost) <= 2 else 1

        pair.fate = fate
        await settled()
        for message in list(lost):
            message.lost()
            await settled()
        pair.is_cut = False
        pair.wake()
        assert await received(pair) == data
    offsets = [item.offset for item in pair.of(wire.Data) if isinstance(item, wire.Data)]
    assert offsets == [0, 8 * KIB, 16 * KIB]


async def test_of_a_lost_chunk_that_arrived_in_part_before_the_rest_is_sent_again() -> None:
    source = Live()
    async with joined(source) as pair:
        pair.hears = False
        source.add(content(100))
        await settled()
        lost: list[Outgoing] = []
        pair.fate = lambda message: lost.append(message) or -1  # type: ignore[func-returns-value]
        pair.sender.receive(wire.Rewind(ID, 1, 50))
        source.add(content(100))
        await settled()
        assert pair.sender.stream.next == 200
        pair.fate = lambda _: 1
        pair.answers.clear()
        pair.hears = True
        pair.sender.receive(wire.Credit(ID, 1, 100, 64 * KIB))
        for message in lost:
            message.lost()
        await settled()  # nothing more follows, and no end: only the sender can know
        assert pair.receiver.stream.received == 200


async def test_a_lost_end_is_sent_again() -> None:
    ends: list[Outgoing] = []

    def fate(message: Outgoing) -> int:
        if not ends and isinstance(wire.decode(message.data)[-1], wire.End):
            ends.append(message)
            return 0
        return 1

    async with joined(BytesSource(content(100))) as pair:
        pair.fate = fate
        assert await received(pair) == content(100)
        await pair.sender.finished()
    assert len(ends) == 1


async def test_a_lost_answer_to_the_end_is_given_again() -> None:
    async with joined(BytesSource(content(100))) as pair:
        pair.hears = False
        await settled()
        assert not pair.sender.is_finished
        pair.answers.clear()
        pair.hears = True
        pair.receiver.feed(pair.of(wire.End)[0])  # type: ignore[arg-type]
        await pair.sender.finished()
        assert await received(pair) == content(100)


async def test_an_end_that_vanished_is_said_again_after_a_second() -> None:
    async with joined(BytesSource(content(100))) as pair:
        pair.fate = lambda message: -isinstance(wire.decode(message.data)[-1], wire.End) or 1
        await settled()
        assert not pair.sender.is_finished
        pair.fate = lambda _: 1
        pair.a_second_passes()
        assert await received(pair) == content(100)
        await pair.sender.finished()


@pytest.mark.parametrize("size", [1000, 1500, 100])  # all credit is used up; more waits; the end
async def test_bytes_that_vanished_are_asked_for(size: int) -> None:
    async with joined(BytesSource(content(size)), window=1000) as pair:
        pair.fate = lambda _: -1  # the hub took them, and nobody ever told of the loss
        await settled()
        pair.fate = lambda _: 1
        for _ in range(3):
            await settled()
            pair.a_second_passes()
        assert await received(pair) == content(size)
        await pair.sender.finished()


# coming back ----------------------------------------------------------------------------------


async def test_the_same_receiver_takes_the_stream_up_on_another_attachment() -> None:
    data = content(200_000)
    async with joined(BytesSource(data), window=50_000) as pair:
        got = [await pair.receiver.receive() for _ in range(3)]
        pair.is_cut = True
        pair.answers.clear()
        pair.outbox.close()
        pair.sender.bind(None)
        await settled()
        pair.sender.resume(*pair.receiver.stream.resume())
        pair.new_outbox()
        pair.is_cut = False
        pair.wake()
        assert b"".join(got) + await received(pair) == data
        await pair.sender.finished()
    assert pair.sender.sha256 == hashlib.sha256(data).digest()


@pytest.mark.parametrize("start", [0, 1, 30_000])
async def test_another_receiver_takes_the_stream_up_with_its_own_digest(start: int) -> None:
    data = content(200_000)
    async with joined(BytesSource(data), window=50_000) as pair:
        await settled()
        pair.answers.clear()
        pair.new_receiver(start)
        pair.sender.resume(*pair.receiver.stream.resume())
        pair.new_outbox()
        assert await received(pair) == data[start:]
        await pair.sender.finished()
    assert pair.sender.sha256 == hashlib.sha256(data[start:]).digest()


async def test_a_stream_that_had_ended_is_sent_again_to_another_receiver() -> None:
    data = content(100)
    async with joined(BytesSource(data)) as pair:
        pair.hears = False  # the answer to the end never comes
        await settled()
        assert pair.sender.final == 100
        pair.answers.clear()
        pair.hears = True
        pair.new_receiver(0)
        pair.sender.resume(0, 0, 1000)
        assert await received(pair) == data


async def test_unbound_a_sender_waits() -> None:
    async with joined(BytesSource(content(100_000)), window=50_000) as pair:
        pair.sender.bind(None)
        await settled()
        assert pair.sent == []
        pair.sender.resume(*pair.receiver.stream.resume())
        pair.new_outbox()
        assert await received(pair) == content(100_000)


@pytest.mark.parametrize("is_killed", [False, True])
async def test_a_cut_costs_a_window_at_most(is_killed: bool) -> None:
    """Each of twenty cuts strikes when all that the receiver allows is on its way, and takes all
    of it. With `is_killed` the sender is another process after each."""
    data, window, cuts = content(1_000_000), 40_000, 20
    async with joined(BytesSource(data), window=window) as pair:
        sent, got = 0, b""

        def note(message: Outgoing) -> int:
            nonlocal sent
            items = wire.decode(message.data)[1:]
            sent += sum(len(item.data) for item in items if isinstance(item, wire.Data))
            return -1 if is_broken else 1

        pair.fate = note
        async with anyio.create_task_group() as group:
            for cut in range(cuts):
                is_broken = False
                while len(got) < (cut + 1) * 45_000:
                    got += await pair.receiver.receive()
                is_broken = True
                await settled()
                pair.answers.clear()
                if is_killed:
                    pair.sender.stop(CallError(Code.CANCELLED, "killed"))
                    stream = SendStream(ID, 1, limit=0, sent=len(data))
                    source = BytesSource(data)
                    pair.sender = Sender(stream, source, clock=pair.clock, wake=pair.wake)
                    pair.receiver.renew()
                    group.start_soon(pair.sender.run)
                pair.sender.resume(*pair.receiver.stream.resume())
                pair.new_outbox()
            is_broken = False
            got += await received(pair)
            await pair.sender.finished()
    assert got == data
    assert len(data) + cuts * window // 4 < sent <= len(data) + cuts * window


async def test_a_resume_that_cannot_be_changes_nothing() -> None:
    async with joined(BytesSource(content(100))) as pair:
        await settled()
        with pytest.raises(Invalid):
            pair.sender.resume(101, 0, 1000)
        assert await received(pair) == content(100)


# what is gone ---------------------------------------------------------------------------------


async def test_bytes_that_are_gone_are_skipped_and_the_digest_begins_behind_them() -> None:
    data = content(100_000)
    async with joined(Spool(data, gone=30_000), window=20_000) as pair:
        assert await received(pair) == data[30_000:]
        await pair.sender.finished()
    assert pair.receiver.stream.skipped == [(0, 30_000)]
    assert pair.sender.sha256 == hashlib.sha256(data[30_000:]).digest()


async def test_bytes_that_go_while_the_receiver_is_slow_are_skipped() -> None:
    data = content(300_000)
    source = Spool(data)
    async with joined(source, window=20_000) as pair:
        first = await pair.receiver.receive()
        assert pair.receiver.position == len(first)
        await settled()
        source.gone = 200_000
        rest = await received(pair)
        await pair.sender.finished()
    assert pair.receiver.position == 300_000
    ((begin, end),) = pair.receiver.stream.skipped
    assert end == 200_000
    assert first + rest == data[:begin] + data[200_000:]


async def test_a_skip_with_nothing_behind_it_is_nothing_to_hand_over() -> None:
    async with joined(Spool(content(64 * KIB), gone=10 * KIB), credit=10 * KIB) as pair:
        await until_skipped(pair)
        assert not pair.receiver.is_ready


async def until_skipped(pair: Wire) -> None:
    while not pair.receiver.stream.skipped:
        await anyio.lowlevel.checkpoint()


async def test_a_skip_takes_its_bytes_from_the_credit() -> None:
    async with joined(Spool(content(300), gone=50), window=100) as pair:
        pair.hears = False
        await settled()
        assert pair.sent == [wire.Skip(ID, 1, 0, 50), wire.Data(ID, 1, 50, content(300)[50:100])]
        assert pair.answers == [wire.Credit(ID, 1, 50, 150)]  # and gives them back at once
        pair.hears = True
        pair.wake()
        assert await received(pair) == content(300)[50:]


async def test_everything_gone_is_a_skip_to_the_end() -> None:
    async with joined(Spool(content(100), gone=100)) as pair:
        assert await received(pair) == b""
        await pair.sender.finished()
    assert pair.receiver.stream.skipped == [(0, 100)]


@pytest.mark.parametrize("seed", range(20))
async def test_a_bad_wire_and_a_forgetful_source_are_told_truly(seed: int) -> None:
    random = Random(seed)
    data = content(300_000)
    source = Spool(data)

    def fate(_: Outgoing) -> int:
        source.gone = min(source.gone + random.choice([0, 0, 15_000]), len(data))
        return random.choice([0, 1, 1, 1, 2])

    async with joined(source, window=40_000) as pair:
        pair.fate = fate
        assert await received(pair) == left_of(data, pair)


@pytest.mark.parametrize("had", [0, 8, 16, 24, 32])
async def test_what_is_gone_behind_a_rewind_is_skipped_where_it_is_missing(had: int) -> None:
    data = content(64 * KIB)
    source = Spool(data)
    async with joined(source) as pair:
        pair.hears = False
        messages: list[Outgoing] = []

        def fate(message: Outgoing) -> int:
            messages.append(message)
            return 1 if len(messages) <= had // 8 else -1  # the rest is lost, and told later

        pair.fate = fate
        await settled()
        assert pair.receiver.stream.received == had * KIB
        source.gone = 16 * KIB
        pair.fate = lambda _: 1
        for message in messages:
            message.lost()
        pair.hears = True
        assert await received(pair) == left_of(data, pair)
        await pair.sender.finished()
    assert pair.receiver.stream.skipped == ([(had * KIB, 16 * KIB)] if had < 16 else [])


def left_of(data: bytes, pair: Wire) -> bytes:
    """`data` without what the receiver was told is gone."""
    at, parts = 0, []
    for begin, end in pair.receiver.stream.skipped:
        parts.append(data[at:begin])
        at = end
    return b"".join([*parts, data[at:]])


# ends before the end --------------------------------------------------------------------------


async def test_other_bytes_are_found_by_their_digest() -> None:
    receiver = Wire(BytesSource(b"")).receiver
    receiver.feed(wire.Data(ID, 1, 0, b"other"))
    receiver.feed(wire.End(ID, 1, 5, 0, hashlib.sha256(b"bytes").digest()))
    assert await receiver.receive() == b"other"
    with pytest.raises(CallError, match="are not the ones that were sent") as caught:
        await receiver.receive()
    assert caught.value.code is Code.DIGEST_MISMATCH
    with pytest.raises(CallError):
        await receiver.receive()


async def test_who_takes_the_bytes_may_hash_them() -> None:
    receiver = Wire(BytesSource(b"")).receiver
    receiver.leave_digest()
    receiver.feed(wire.Data(ID, 1, 0, b"bytes"))
    receiver.feed(wire.End(ID, 1, 5, 0, hashlib.sha256(b"bytes").digest()))
    assert await receiver.receive_all() == [b"bytes"]
    assert await receiver.receive_all() == []
    receiver.check_digest(hashlib.sha256(b"bytes").digest())
    with pytest.raises(CallError) as caught:
        receiver.check_digest(hashlib.sha256(b"other").digest())
    assert caught.value.code is Code.DIGEST_MISMATCH


async def test_a_receiver_that_gives_up_stops_the_sender() -> None:
    source = Spool(content(100_000))
    async with joined(source, window=10_000) as pair:
        await pair.receiver.receive()
        pair.receiver.reset(CallError(Code.NO_SPACE, "disk full"))
        await pair.sender.finished()
        assert pair.sender.error is not None
        assert (pair.sender.error.code, pair.sender.error.message) == (Code.NO_SPACE, "disk full")
        await settled()
        assert source.is_closed
        with pytest.raises(CallError, match="disk full"):
            await received(pair)


async def test_a_source_that_fails_resets_the_stream_after_what_was_sent() -> None:
    class Broken(Spool):
        async def read(self, offset: int, size: int) -> Piece:
            if offset >= 8 * KIB:
                raise CallError(Code.SOURCE_CHANGED, "the file changed")
            return await super().read(offset, size)

    source = Broken(content(100_000))
    async with joined(source) as pair:
        with pytest.raises(CallError, match="the file changed") as caught:
            await received(pair)
        assert caught.value.code is Code.SOURCE_CHANGED
    assert source.is_closed


async def test_a_source_that_fails_in_its_own_way_fails_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(Spool):
        async def read(self, offset: int, size: int) -> Piece:
            raise ZeroDivisionError

    async with joined(Broken(b"")) as pair:
        with pytest.raises(CallError) as caught:
            await received(pair)
        assert caught.value.code is Code.INTERNAL
    assert "failed inside" in caplog.text


async def test_a_broken_rule_breaks_off_this_stream_only() -> None:
    pair = Wire(BytesSource(b""), window=10)
    pair.receiver.feed(wire.Data(ID, 1, 0, b"x" * 11))
    assert pair.answers == [
        wire.Reset(ID, 1, "limit", "stream data beyond its credit: 11, at most 10 allowed")
    ]
    pair.receiver.feed(wire.Data(ID, 1, 0, b"x"))  # ignored
    with pytest.raises(CallError, match="beyond its credit"):
        await pair.receiver.receive()


async def test_a_stopped_sender_says_nothing_more() -> None:
    async with joined(BytesSource(content(100_000)), window=10_000) as pair:
        await settled()
        before = len(pair.sent)
        pair.sender.stop(CallError(Code.CANCELLED, "nobody wants it"))
        await pair.sender.finished()
        await settled()
        assert len(pair.sent) == before


async def test_cancelling_a_sender_releases_its_source_and_its_lane() -> None:
    source = Spool(content(100_000))
    async with joined(source, window=10_000) as pair:
        await settled()
    assert source.is_closed
    assert pair.outbox.is_empty
    with anyio.fail_after(1):
        await pair.sender.finished()


async def test_cancelling_a_receive_loses_nothing() -> None:
    source = Live()
    async with joined(source) as pair:
        with anyio.move_on_after(0.01):
            await pair.receiver.receive()
        source.add(b"late", end=True)
        assert await received(pair) == b"late"


async def test_the_result_may_say_that_there_never_was_a_stream() -> None:
    pair = Wire(BytesSource(b""))
    pair.receiver.never_began()
    assert await pair.receiver.receive() == b""
    assert pair.answers == []  # there is nobody to tell


async def test_a_stream_that_has_begun_is_not_ended_by_saying_that_it_never_did() -> None:
    pair = Wire(BytesSource(b""))
    pair.receiver.feed(wire.Data(ID, 1, 0, b"abc"))
    pair.receiver.never_began()
    assert pair.receiver.stream.ended is None


def taken_up(at: int) -> Receiver:
    stream = ReceiveStream(ID, 1, window=100, start=at)
    return Receiver(stream, send=lambda envelope: None, clock=ManualClock())


async def test_the_result_says_the_end_to_who_takes_up_what_was_whole() -> None:
    receiver = taken_up(3)
    receiver.finish_at(3, hashlib.sha256(b"abc").digest())
    assert await receiver.receive() == b""


async def test_the_digest_in_the_result_is_not_that_of_a_part() -> None:
    receiver = taken_up(2)
    receiver.feed(wire.Data(ID, 1, 2, b"c"))
    receiver.finish_at(3, hashlib.sha256(b"abc").digest())
    assert receiver.stream.ended is None
    receiver.feed(wire.End(ID, 1, 3, 2, hashlib.sha256(b"c").digest()))
    assert [await receiver.receive(), await receiver.receive()] == [b"c", b""]


async def test_nor_is_it_that_of_what_another_process_goes_on_with() -> None:
    receiver = taken_up(0)
    receiver.feed(wire.Data(ID, 1, 0, b"abc"))
    receiver.renew()
    receiver.finish_at(3, hashlib.sha256(b"abc").digest())
    assert [await receiver.receive(), await receiver.receive()] == [b"abc", b""]


async def test_the_result_may_say_the_end() -> None:
    receiver = Wire(BytesSource(b"")).receiver
    sha256 = hashlib.sha256(b"abc").digest()
    receiver.finish_at(3, sha256)  # too early: bytes are missing
    receiver.feed(wire.Data(ID, 1, 0, b"abc"))
    assert not receiver.stream.ended
    receiver.finish_at(3, None)  # says nothing
    receiver.finish_at(3, sha256)
    assert [await receiver.receive(), await receiver.receive()] == [b"abc", b""]
