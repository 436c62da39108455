"""Attachments over time, on a clock that the test moves."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from rawpeer import RawPeer, raw_peer
from stack import Stack, open_stack, until

from sidecar.clock import ManualClock
from sidecar.early import EARLY_MESSAGES
from sidecar.protocol import envelope as wire
from sidecar.protocol.limits import ATTACHMENT_SILENCE, ATTACHMENTS, READERS, STREAM_WAIT
from sidecar.protocol.outbox import CONTROL_BYTES
from sidecar.protocol.window import REPEAT_AFTER


def advance(stack: Stack, clock: ManualClock, seconds: float) -> None:
    """Time passes, and the exchange notices."""
    clock.advance(seconds)
    stack.sidecar.exchange._on_deadline()


async def test_an_attachment_lapses_after_silence_and_frees_its_readers_place(
    tmp_path: Path,
) -> None:
    clock = ManualClock()
    async with open_stack(tmp_path, clock=clock) as stack, raw_peer(stack.hub) as peer:
        await peer.attach(after=0)
        assert (stack.sidecar.exchange.attached, stack.sidecar.exchange.readers) == (1, 1)
        advance(stack, clock, ATTACHMENT_SILENCE - 1)
        assert stack.sidecar.exchange.attached == 1
        await peer.result(await peer.call("sidecar.ping"))  # a sign of life
        advance(stack, clock, ATTACHMENT_SILENCE - 1)
        assert stack.sidecar.exchange.attached == 1
        advance(stack, clock, 1)
        assert (stack.sidecar.exchange.attached, stack.sidecar.exchange.readers) == (0, 0)
        await peer.call("sidecar.ping")
        await peer.expect(wire.Hello)
        assert stack.sidecar.exchange.dropped == {"attachment": 1}


async def test_calls_outlive_their_attachment_and_streams_wait_ten_minutes(tmp_path: Path) -> None:
    clock = ManualClock()
    async with open_stack(tmp_path, clock=clock) as stack, raw_peer(stack.hub) as peer:
        await peer.attach()
        shell = {"shell": "echo ran >> count; head -c 100000 /dev/zero"}
        id = await peer.call("exec.run", shell, credit=1000)
        await peer.expect(wire.Result, id=id)
        advance(stack, clock, ATTACHMENT_SILENCE)
        assert stack.sidecar.exchange.attached == 0
        assert len(stack.sidecar.dispatcher._open) == 1
        advance(stack, clock, STREAM_WAIT - 1)
        assert len(stack.sidecar.dispatcher._open) == 1

        await peer.attach()
        await peer.send(wire.Ask(id, {1: [0, 0, 1 << 20]}))
        end = await peer.expect(wire.End, id=id, n=1)
        assert end.offset == 100_000
        assert (stack.workspace / "count").read_text() == "ran\n"

        advance(stack, clock, ATTACHMENT_SILENCE)
        advance(stack, clock, STREAM_WAIT)
        await until(lambda: not stack.sidecar.dispatcher._open)
        [program] = stack.sidecar.means.processes.all()
        assert not program.has_readers


async def test_the_timer_is_set_for_streams_that_nobody_asks_for(tmp_path: Path) -> None:
    clock = ManualClock()
    async with open_stack(tmp_path, clock=clock) as stack, raw_peer(stack.hub) as peer:
        await peer.attach()
        id = await peer.call("exec.run", {"shell": "head -c 100000 /dev/zero"}, credit=1000)
        await peer.expect(wire.Result, id=id)
        await peer.send(wire.Detach())
        await until(lambda: stack.sidecar.exchange.attached == 0)
        since = clock.now()
        advance(stack, clock, 1.0)
        assert stack.sidecar.exchange._timer._deadline == since + STREAM_WAIT


async def test_the_window_is_stated_every_30_seconds(tmp_path: Path) -> None:
    clock = ManualClock()
    async with open_stack(tmp_path, clock=clock) as stack, raw_peer(stack.hub) as peer:
        answer = await peer.attach()
        advance(stack, clock, REPEAT_AFTER)
        window = await peer.expect(wire.Window)
        assert [window.limit_bytes, window.limit_messages] == answer.window
        await peer.send(wire.Blocked())
        await peer.expect(wire.Window, seen_messages=1)


async def test_the_same_nonce_gets_the_same_answer_and_no_second_reader(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack, raw_peer(stack.hub) as peer:
        nonce = peer.new_id()
        request = wire.encode(wire.Attach("raw", nonce, [1], [1 << 20, 128], after=0))
        answers = []
        for _ in range(3):
            await peer.publish(request)
            answers.append(await peer.expect(wire.Attached, nonce=nonce))
        assert answers[0].attachment == answers[1].attachment == answers[2].attachment
        assert (stack.sidecar.exchange.attached, stack.sidecar.exchange.readers) == (1, 1)


async def attach_many(peer: RawPeer, count: int, **options: int) -> None:
    for _ in range(count):
        await peer.attach(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "limit, options", [(ATTACHMENTS, {}), (READERS, {"after": 0})], ids=["ids", "readers"]
)
async def test_one_attachment_too_many_is_refused_until_one_ends(
    limit: int, options: dict[str, int], tmp_path: Path
) -> None:
    async with open_stack(tmp_path) as stack, raw_peer(stack.hub) as peer:
        await attach_many(peer, limit, **options)
        nonce = peer.new_id()
        request = wire.encode(wire.Attach("raw", nonce, [1], [1 << 20, 128], **options))  # type: ignore[arg-type]
        await peer.publish(request)
        refused = await peer.expect(wire.Refused, nonce=nonce)
        assert refused.error["code"] == "limit"
        assert stack.sidecar.exchange.attached == limit
        await peer.send(wire.Detach())
        await peer.publish(request)
        await peer.expect(wire.Attached, nonce=nonce)


@pytest.mark.slow
async def test_who_never_reads_answers_is_given_up(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack, raw_peer(stack.hub) as peer:
        other = await stack.attach("other")
        await peer.attach(window=[1 << 19, 2])
        payload = wire.dumps({"payload": bytes(16_000)})
        for _ in range(CONTROL_BYTES // 16_000 // 50 + 2):
            pings = [wire.Call(peer.new_id(), "sidecar.ping", payload) for _ in range(50)]
            await peer.send(*pings)
        with anyio.fail_after(20):
            while stack.sidecar.exchange.attached == 2:
                assert await other.ping() < 2.0


async def test_a_detach_of_what_has_gone_makes_nobody_attach_anew(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack, raw_peer(stack.hub) as peer:
        await peer.attach()
        await peer.send(wire.Detach())
        await peer.send(wire.Detach())
        await peer.attach()
        await peer.result(await peer.call("sidecar.ping"))
        assert stack.sidecar.exchange.dropped == {}


async def test_a_durable_reader_holds_what_it_has_not_acked(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack, raw_peer(stack.hub) as peer:
        await peer.attach(after=0, reader="platform")
        for number in range(5):
            stack.sidecar.means.emit("x", number)
        await peer.expect(wire.Event, seq=6)
        assert stack.sidecar.journal.acked == 0
        await peer.send(wire.EventAck(4))
        await until(lambda: stack.sidecar.journal.acked == 4)
        await peer.send(wire.EventAck(99), wire.EventAck(2))  # a lie, and an old one
        await peer.result(await peer.call("sidecar.ping"))
        assert stack.sidecar.journal.acked == 4


async def test_who_attaches_and_calls_before_there_is_a_dispatcher_is_answered_in_order(
    tmp_path: Path,
) -> None:
    async with open_stack(tmp_path) as stack, raw_peer(stack.hub) as peer:
        exchange, dispatcher = stack.sidecar.exchange, stack.sidecar.dispatcher
        exchange._dispatcher = None  # as right after `hello`
        nonce = peer.new_id()
        request = wire.encode(wire.Attach("raw", nonce, [1], [1 << 20, 128]))
        await peer.publish(request)
        await peer.publish(request)  # it was not answered at once
        await until(lambda: len(exchange._early._messages) == 2)
        assert exchange.attached == 0
        exchange.begin(dispatcher, stack.sidecar.journal)
        first = await peer.expect(wire.Attached, nonce=nonce)
        second = await peer.expect(wire.Attached, nonce=nonce)
        assert first.attachment == second.attachment
        assert (exchange.attached, exchange.dropped) == (1, {})
        await peer.attach()
        await peer.result(await peer.call("sidecar.ping"))


async def test_what_is_too_much_before_there_is_a_dispatcher_is_counted(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack, raw_peer(stack.hub) as peer:
        exchange, dispatcher = stack.sidecar.exchange, stack.sidecar.dispatcher
        exchange._dispatcher = None
        for _ in range(EARLY_MESSAGES + 1):
            await peer.publish(b"\xff")
        await until(lambda: exchange.dropped["early"] == 1)
        exchange.begin(dispatcher, stack.sidecar.journal)
        assert exchange.dropped == {"early": 1, "broken": EARLY_MESSAGES}
        await peer.attach()
