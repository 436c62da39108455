"""A call that waits for its answer, with made-up times."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from sidecar.client.pending import FENCE_TIME, RESEND_AFTER, PendingCall
from sidecar.clock import ManualClock
from sidecar.errors import CallError, Code, Retry, Started
from sidecar.protocol import envelope as wire
from sidecar.protocol.calls import failure, fenced
from sidecar.protocol.limits import ACCEPT_TIME

ID = bytes(16)
CALL = wire.Call(ID, "sidecar.ping", b"\xa0")


class Bench:
    def __init__(self, call: wire.Call | None = CALL) -> None:
        self.clock = ManualClock()
        self.sent: list[Any] = []
        self.call = PendingCall(ID, call, credit=100, clock=self.clock, send=self.sent.append)

    def pass_time(self, seconds: float) -> None:
        """Second by second, as a timer would."""
        for _ in range(int(seconds)):
            self.clock.advance(1.0)
            self.call.handle_deadline(now=self.clock.now())


def test_it_is_sent_again_until_accepted() -> None:
    bench = Bench()
    bench.pass_time(RESEND_AFTER + 4 + 8)
    assert bench.sent == [CALL] * 3
    bench.call.receive_state(wire.State(ID, "accepted"))
    assert bench.call.next_deadline() is None
    bench.pass_time(200)
    assert bench.sent == [CALL] * 3


async def test_after_a_minute_it_is_fenced_and_then_it_never_ran() -> None:
    bench = Bench()
    bench.pass_time(ACCEPT_TIME + 10)
    assert bench.sent[-1] == wire.Cancel(ID)
    bench.call.receive_result(failure(ID, fenced(ID)))
    with pytest.raises(CallError) as caught:
        await bench.call.wait()
    error = caught.value
    assert (error.code, error.started, error.retry) == (
        Code.NOT_ACCEPTED,
        Started.NO,
        Retry.NEW_ID,
    )


async def test_a_fence_that_nobody_confirms_leaves_it_unknown() -> None:
    bench = Bench()
    bench.pass_time(ACCEPT_TIME + 10 + FENCE_TIME + 10)
    with pytest.raises(CallError) as caught:
        await bench.call.wait()
    error = caught.value
    assert (error.code, error.started, error.retry) == (
        Code.NOT_ACCEPTED,
        Started.UNKNOWN,
        Retry.NEVER,
    )


async def test_a_sidecar_that_forgot_an_accepted_call_leaves_its_outcome_unknown() -> None:
    bench = Bench()
    bench.call.accepted = True
    bench.call.receive_state(wire.State(ID, "unknown_call"))
    with pytest.raises(CallError) as caught:
        await bench.call.wait()
    assert caught.value.code is Code.OUTCOME_UNKNOWN


async def test_one_that_is_only_asked_about_is_never_sent() -> None:
    bench = Bench(None)
    bench.pass_time(ACCEPT_TIME + 20)
    assert bench.sent == []
    bench.call.receive_state(wire.State(ID, "unknown_call"))
    with pytest.raises(CallError) as caught:
        await bench.call.wait()
    assert (caught.value.code, caught.value.retry) == (Code.UNKNOWN_CALL, Retry.SAME_ID)


async def test_the_first_result_counts() -> None:
    bench = Bench()
    bench.call.receive_result(wire.Result(ID, wire.dumps(1)))
    bench.call.receive_result(wire.Result(ID, wire.dumps(2)))
    bench.call.fail(CallError(Code.CANCELLED, "too late"))
    assert await bench.call.wait() == 1


async def test_a_result_may_say_the_end_of_a_stream_whose_end_was_lost() -> None:
    bench = Bench()
    receiver = bench.call.receiver(1)
    receiver.feed(wire.Data(ID, 1, 0, b"abc"))
    digest = hashlib.sha256(b"abc").digest()
    bench.call.receive_result(wire.Result(ID, wire.dumps({}), streams={1: [3, digest]}))
    assert [chunk async for chunk in receiver] == [b"abc"]


async def test_what_is_reset_after_its_end_is_still_whole() -> None:
    bench = Bench()
    receiver = bench.call.receiver(1)
    receiver.feed(wire.Data(ID, 1, 0, b"abc"))
    receiver.feed(wire.End(ID, 1, 3, 0, hashlib.sha256(b"abc").digest()))
    receiver.feed(wire.Reset(ID, 1, "answer_gone", "no longer kept"))
    assert [chunk async for chunk in receiver] == [b"abc"]
