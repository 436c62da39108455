"""A call that waits for its answer, with made-up times."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from sidecar.client.pending import FENCE_TIME, OVERDUE, RESULT_STREAM, PendingCall
from sidecar.clock import ManualClock
from sidecar.errors import CallError, Code, Retry, Started
from sidecar.protocol import envelope as wire
from sidecar.protocol.calls import expired, failure, fenced
from sidecar.protocol.limits import ACCEPT_TIME
from sidecar.protocol.streams import SendStream
from sidecar.streaming import BytesSource, Sender

ID = bytes(16)
CALL = wire.Call(ID, "sidecar.ping", b"\xa0")
ATTACHED = wire.Attached(ID, ID, ID, ID, 1, 1, 0, 1, [1 << 20, 64])


class Bench:
    def __init__(self, call: wire.Call | None = CALL) -> None:
        self.clock = ManualClock()
        self.sent: list[Any] = []
        self.call = PendingCall(ID, call, credit=100, clock=self.clock, send=self.sent.append)

        self.began = self.clock.now()
        self.call.sent_to = ATTACHED

    def pass_time(self, seconds: float) -> list[float]:
        """As a timer would; the seconds since the begin at which it was due."""
        times: list[float] = []
        until = self.clock.now() + seconds
        while (due := self.call.next_deadline()) is not None and due <= until:
            self.clock.advance(due - self.clock.now())
            times.append(due - self.began)
            self.call.handle_deadline(now=due)
            if self.call.has_ended:
                break
        self.clock.advance(max(0.0, until - self.clock.now()))
        return times


def test_it_is_sent_again_sooner_at_first_than_later_until_accepted() -> None:
    bench = Bench()
    assert bench.pass_time(20) == [0.25, 0.75, 1.75, 3.75, 7.75, 12.75, 17.75]
    assert bench.sent == [CALL] * 7
    assert not bench.call.receive_state(wire.State(ID, "accepted"))
    assert bench.call.next_deadline() is None
    bench.pass_time(200)
    assert bench.sent == [CALL] * 7


async def test_one_that_was_never_sent_never_ran() -> None:
    bench = Bench()
    bench.call.sent_to = None
    bench.pass_time(ACCEPT_TIME + 10 + FENCE_TIME + 10)
    with pytest.raises(CallError) as caught:
        await bench.call.wait()
    assert (caught.value.code, caught.value.started) == (Code.NOT_ACCEPTED, Started.NO)


def test_one_that_had_not_begun_is_sent_again_as_if_for_the_first_time() -> None:
    bench = Bench()
    bench.call.accepted = True
    half = bench.call.receiver(RESULT_STREAM)
    half.feed(wire.Data(ID, RESULT_STREAM, 0, b"half of a resu"))
    bench.pass_time(100)
    assert bench.call.receive_state(wire.State(ID, "resend"))
    assert bench.call.receiver(RESULT_STREAM).stream.received == 0
    assert bench.pass_time(2) == [100.25, 100.75, 101.75]


async def test_one_that_had_not_begun_is_not_accepted_if_its_arguments_are_not_here() -> None:
    bench = Bench(None)
    assert not bench.call.receive_state(wire.State(ID, "resend"))
    with pytest.raises(CallError) as caught:
        await bench.call.wait()
    error = caught.value
    assert (error.code, error.started, error.retry) == (
        Code.NOT_ACCEPTED,
        Started.NO,
        Retry.NEW_ID,
    )


def test_one_that_is_being_cancelled_is_not_sent_again() -> None:
    bench = Bench()
    bench.call.cancel_wanted = True
    assert not bench.call.receive_state(wire.State(ID, "resend"))
    fenced = Bench()
    fenced.pass_time(ACCEPT_TIME + 5)
    assert fenced.sent[-1] == wire.Cancel(ID)
    assert not fenced.call.receive_state(wire.State(ID, "resend"))


async def test_a_stream_of_it_that_was_begun_cannot_begin_again() -> None:
    bench = Bench()
    bench.call.accepted = True
    bench.call.receiver(3).feed(wire.Data(ID, 3, 0, b"half"))
    assert not bench.call.receive_state(wire.State(ID, "resend"))
    with pytest.raises(CallError, match="what is missing of it will not come") as caught:
        await bench.call.wait()
    assert (caught.value.code, caught.value.retry) == (Code.OUTCOME_UNKNOWN, Retry.NEW_ID)


async def test_bytes_that_a_sidecar_took_along_cannot_be_sent_again() -> None:
    bench = Bench()
    stream = SendStream(ID, 0, limit=100)
    sender = Sender(stream, BytesSource(b"input"), clock=bench.clock, wake=lambda: None)
    bench.call.senders[0] = sender
    stream.sent(5)
    sender.receive(wire.Credit(ID, 0, 5, 100))
    assert not bench.call.receive_state(wire.State(ID, "resend"))
    with pytest.raises(CallError) as caught:
        await bench.call.wait()
    error = caught.value
    assert (error.code, error.started, error.retry) == (
        Code.NOT_ACCEPTED,
        Started.NO,
        Retry.NEW_ID,
    )
    assert sender.error is error


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


def test_what_does_no_harm_twice_is_sent_again_to_one_that_forgot_it() -> None:
    bench = Bench()
    bench.call.accepted = True
    assert bench.call.receive_state(wire.State(ID, "unknown_call"))
    assert not bench.call.accepted


async def test_a_sidecar_that_forgot_an_accepted_call_leaves_its_outcome_unknown() -> None:
    bench = Bench(wire.Call(ID, "exec.run", b"\xa0"))
    bench.call.accepted = True
    bench.call.receive_state(wire.State(ID, "unknown_call"))
    with pytest.raises(CallError) as caught:
        await bench.call.wait()
    assert caught.value.code is Code.OUTCOME_UNKNOWN


async def test_one_that_is_only_asked_about_is_never_sent() -> None:
    bench = Bench(None)
    bench.pass_time(ACCEPT_TIME - 1)
    assert bench.sent == []
    bench.call.receive_state(wire.State(ID, "unknown_call"))
    with pytest.raises(CallError) as caught:
        await bench.call.wait()
    assert (caught.value.code, caught.value.retry) == (Code.UNKNOWN_CALL, Retry.SAME_ID)


async def test_after_its_result_what_is_unknown_of_it_is_the_rest_of_its_streams() -> None:
    bench = Bench(None)
    receiver = bench.call.receiver(1)
    bench.call.receive_result(wire.Result(ID, wire.dumps(1), streams={1: [9, None]}))
    bench.call.receive_state(wire.State(ID, "unknown_call"))
    assert await bench.call.wait() == 1
    with pytest.raises(CallError) as caught:
        await receiver.receive()
    assert caught.value.code is Code.ANSWER_GONE


async def test_an_ask_that_nobody_answers_ends_after_a_minute() -> None:
    bench = Bench(None)
    assert bench.pass_time(1000) == [ACCEPT_TIME]
    with pytest.raises(CallError) as caught:
        await bench.call.wait()
    error = caught.value
    assert (error.code, error.details["which"]) == (Code.TIMEOUT, "answer")
    assert (error.started, error.retry) == (Started.UNKNOWN, Retry.SAME_ID)


def test_an_ask_that_was_answered_is_waited_for_without_limit() -> None:
    bench = Bench(None)
    bench.call.receive_state(wire.State(ID, "started"))
    assert bench.pass_time(10_000) == []
    assert not bench.call.has_ended


async def test_a_deadline_that_the_sidecar_does_not_keep_is_kept_here_in_the_end() -> None:
    bench = Bench(wire.Call(ID, "exec.run", b"\xa0", deadline_ms=5000))
    bench.call.receive_state(wire.State(ID, "started"))
    assert bench.pass_time(1000) == [ACCEPT_TIME + 5 + OVERDUE]
    with pytest.raises(CallError) as caught:
        await bench.call.wait()
    assert (caught.value.code, caught.value.started) == (Code.TIMEOUT, Started.UNKNOWN)


async def test_the_first_result_counts() -> None:
    bench = Bench()
    bench.call.receive_result(wire.Result(ID, wire.dumps(1)))
    bench.call.receive_result(wire.Result(ID, wire.dumps(2)))
    bench.call.fail(CallError(Code.CANCELLED, "too late"))
    assert await bench.call.wait() == 1


async def test_a_stream_that_goes_on_after_the_result_ends_with_the_memory_of_its_call() -> None:
    bench = Bench(wire.Call(ID, "files.read", b"\xa0"))
    receiver = bench.call.receiver(3)
    receiver.feed(wire.Data(ID, 3, 0, b"abc"))
    bench.call.receive_result(wire.Result(ID, wire.dumps(1), streams={3: [3, None]}))
    bench.call.receive_state(wire.State(ID, "unknown_call"))
    assert await bench.call.wait() == 1
    assert await receiver.receive() == b"abc"
    with pytest.raises(CallError):
        await receiver.receive()


async def test_a_stream_that_goes_on_after_the_result_ends_with_the_receipt_of_its_call() -> None:
    bench = Bench(wire.Call(ID, "files.read", b"\xa0"))
    receiver = bench.call.receiver(3)
    bench.call.receive_result(wire.Result(ID, wire.dumps(1), streams={3: [0, None]}))
    bench.call.receive_result(failure(ID, expired(ID)))
    assert await bench.call.wait() == 1
    with pytest.raises(CallError, match="older than what receipts remember"):
        await receiver.receive()


async def test_a_result_may_say_the_end_of_a_stream_whose_end_was_lost() -> None:
    bench = Bench()
    receiver = bench.call.receiver(1)
    receiver.feed(wire.Data(ID, 1, 0, b"abc"))
    digest = hashlib.sha256(b"abc").digest()
    bench.call.receive_result(wire.Result(ID, wire.dumps({}), streams={1: [3, digest]}))
    assert [chunk async for chunk in receiver] == [b"abc"]


def test_a_stream_that_no_ask_has_named_is_asked_for_when_the_result_tells_of_it() -> None:
    bench = Bench()
    bench.call.ask()  # on a new attachment: whatever was sent before waits to be asked for
    bench.call.receive_result(wire.Result(ID, b"\xa0", streams={3: [0, None]}))
    assert bench.sent == [wire.Ask(ID, {3: [0, 0, 100]})]


def test_a_stream_that_has_begun_to_come_is_not_asked_for() -> None:
    bench = Bench()
    bench.call.ask()
    bench.call.receiver(3, has_begun=True)
    assert bench.sent == []


async def test_what_is_reset_after_its_end_is_still_whole() -> None:
    bench = Bench()
    receiver = bench.call.receiver(1)
    receiver.feed(wire.Data(ID, 1, 0, b"abc"))
    receiver.feed(wire.End(ID, 1, 3, 0, hashlib.sha256(b"abc").digest()))
    receiver.feed(wire.Reset(ID, 1, "answer_gone", "no longer kept"))
    assert [chunk async for chunk in receiver] == [b"abc"]
