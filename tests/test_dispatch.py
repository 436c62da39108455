"""Calls with handlers made for the test: receipts, answers, ends, and defects of handlers."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest
from callbench import ID, OTHER, Bench, echo, raising, running
from stack import until

from sidecar.callrunner import RESULT_STREAM
from sidecar.context import CallContext, Handler
from sidecar.errors import CallError, Code, Retry, Started
from sidecar.protocol import envelope as wire
from sidecar.protocol.attach import Origin
from sidecar.protocol.effects import Effect
from sidecar.protocol.limits import STREAM_WAIT
from sidecar.protocol.names import Scope
from sidecar.streaming import BytesSource


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    async with running(bench.dispatcher):
        yield bench


async def test_accepted_goes_before_the_result(bench: Bench) -> None:
    bench.install(echo)
    bench.call(5)
    await anyio.wait_all_tasks_blocked()
    assert bench.said() == [
        wire.Accepted(ID),
        wire.Result(ID, wire.dumps({"echo": 5}), seq=7),
    ]


async def test_accepted_is_in_no_hurry_and_the_result_is(bench: Bench) -> None:
    go_on = anyio.Event()

    async def handler(ctx: CallContext, arguments: Any) -> dict[str, Any]:
        await go_on.wait()
        return {}

    bench.install(handler)
    bench.call(5)
    await anyio.wait_all_tasks_blocked()
    assert bench.wakes == ["soon"]
    go_on.set()
    await anyio.wait_all_tasks_blocked()
    assert bench.wakes == ["soon", "now"]


async def test_a_call_that_comes_before_the_catalogue_waits_for_it(bench: Bench) -> None:
    bench.call(5)
    await anyio.wait_all_tasks_blocked()
    assert bench.said() == []
    bench.install(echo)
    assert wire.loads((await bench.expect(wire.Result)).value) == {"echo": 5}


async def test_a_call_cancelled_before_the_catalogue_never_runs(bench: Bench) -> None:
    bench.call(5)
    await anyio.wait_all_tasks_blocked()
    bench.dispatcher.cancel(ID, bench.origin)
    error = wire.error_from((await bench.expect(wire.Result)).error)
    assert (error.code, error.started) == (Code.CANCELLED, Started.NO)


DEFECTS = [
    pytest.param(raising(ZeroDivisionError("secret")), id="raises"),
    pytest.param(raising(ExceptionGroup("x", [ValueError("secret")])), id="raises-a-group"),
    pytest.param(raising(anyio.ClosedResourceError()), id="uses-what-is-closed"),
]


@pytest.mark.parametrize("handler", DEFECTS)
async def test_a_defect_of_a_handler_is_internal_and_tells_no_secret(
    handler: Handler, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.install(handler)
    with caplog.at_level(logging.ERROR):
        bench.call()
        result = await bench.expect(wire.Result)
    error = wire.error_from(result.error)
    assert (error.code, error.started, error.retry) == (Code.INTERNAL, Started.YES, Retry.NEW_ID)
    assert "secret" not in error.message
    assert "Traceback" in caplog.text
    await still_serves(bench)


@pytest.mark.parametrize("value", [{"x": object()}, {"x": "\udcff"}, {"x": {1, 2}.__iter__()}])
async def test_an_answer_that_cannot_be_encoded_is_a_defect_of_its_handler_only(
    value: dict[str, Any], bench: Bench
) -> None:
    async def handler(ctx: CallContext, arguments: Any) -> dict[str, Any]:
        return value

    bench.install(handler)
    bench.call()
    error = wire.error_from((await bench.expect(wire.Result)).error)
    assert error.code is Code.INTERNAL
    await still_serves(bench)


async def still_serves(bench: Bench) -> None:
    bench.install(echo)
    bench.call(1, id=OTHER)
    assert (await bench.expect(wire.Result)).id == OTHER
    assert bench.dispatcher.open_calls == 0


async def test_errors_of_a_handlers_own_tasks_come_out_as_one(bench: Bench) -> None:
    async def handler(ctx: CallContext, arguments: Any) -> dict[str, Any]:
        async with anyio.create_task_group() as group:
            group.start_soon(fail)
            await anyio.sleep_forever()
        raise AssertionError

    async def fail() -> None:
        raise CallError(Code.NO_SPACE, "full", started=Started.YES)

    bench.install(handler)
    bench.call()
    error = wire.error_from((await bench.expect(wire.Result)).error)
    assert (error.code, error.message) == (Code.NO_SPACE, "full")


async def test_a_repeated_call_gets_the_first_answer_and_runs_nothing(bench: Bench) -> None:
    runs: list[Any] = []

    async def handler(ctx: CallContext, arguments: Any) -> dict[str, Any]:
        runs.append(arguments)
        return {"run": len(runs)}

    bench.install(handler)
    bench.call(1)
    first = await bench.expect(wire.Result)
    bench.call(1)
    assert await bench.expect(wire.Result) == first
    bench.call(2)
    assert wire.error_from((await bench.expect(wire.Result)).error).code is Code.CONFLICT
    assert runs == [1]


async def test_a_result_too_large_for_its_envelope_comes_as_stream_4(bench: Bench) -> None:
    async def handler(ctx: CallContext, arguments: Any) -> dict[str, Any]:
        return {"large": bytes(100_000)}

    bench.install(handler)
    bench.call()
    found: list[Any] = []
    await until(
        lambda: bool(found.extend(bench.said()) or [x for x in found if type(x) is wire.End])
    )
    (result,) = [x for x in found if isinstance(x, wire.Result)]
    assert (result.value, result.error) == (None, None)
    data = b"".join(x.data for x in found if isinstance(x, wire.Data))
    assert wire.loads(data) == {"large": bytes(100_000)}
    assert {x.n for x in found if isinstance(x, wire.Data)} == {RESULT_STREAM}

    bench.dispatcher.stream(wire.Credit(ID, 4, len(data), 1 << 30, True), bench.origin)
    await until(lambda: bench.dispatcher.next_deadline() is None)
    await anyio.wait_all_tasks_blocked()
    bench.call()  # the answer was too large to be kept
    error = wire.error_from((await bench.expect(wire.Result)).error)
    assert error.code is Code.ANSWER_GONE


async def test_by_rest_a_result_too_large_needs_an_attachment(bench: Bench) -> None:
    async def handler(ctx: CallContext, arguments: Any) -> dict[str, Any]:
        return {"large": bytes(100_000)}

    bench.install(handler)
    rest = Origin(Scope.FULL, reply_group="out.demo.me", incarnation=b"i" * 16)
    bench.call(origin=rest)
    await until(lambda: bool(bench.loose))
    ((group, (result,)),) = bench.loose  # and no `accepted`
    assert group == "out.demo.me"
    assert wire.error_from(result.error).code is Code.NEEDS_ATTACHMENT


async def test_a_deadline_counts_from_acceptance(bench: Bench) -> None:
    async def handler(ctx: CallContext, arguments: Any) -> dict[str, Any]:
        await ctx.started()
        await anyio.sleep_forever()
        return {}

    bench.install(handler)
    bench.call(deadline_ms=20)
    error = wire.error_from((await bench.expect(wire.Result)).error)
    assert (error.code, error.started) == (Code.TIMEOUT, Started.YES)
    assert error.details == {"which": "deadline"}
    bench.call(id=OTHER, deadline_ms=0)
    assert wire.error_from((await bench.expect(wire.Result)).error).code is Code.TIMEOUT


def streaming(release: Callable[[], None]) -> Handler:
    class Source(BytesSource):
        async def aclose(self) -> None:
            release()

    async def handler(ctx: CallContext, arguments: Any) -> dict[str, Any]:
        ctx.send(1, Source(b"content"))
        return {}

    return handler


async def test_streams_that_nobody_asks_for_are_given_up_after_ten_minutes(bench: Bench) -> None:
    released = anyio.Event()
    bench.install(streaming(released.set))
    bench.call()
    await bench.expect(wire.Result)
    assert bench.dispatcher.next_deadline() is None
    assert bench.origin.attachment is not None
    bench.dispatcher.attachment_ended(bench.origin.attachment)
    deadline = bench.dispatcher.next_deadline()
    assert deadline == bench.clock.now() + STREAM_WAIT
    bench.dispatcher.sweep(now=deadline - 1)
    await anyio.wait_all_tasks_blocked()
    assert not released.is_set()
    bench.dispatcher.sweep(now=deadline)
    with anyio.fail_after(5):
        await released.wait()
    assert bench.dispatcher.next_deadline() is None


@pytest.mark.parametrize("effect, ended", [(Effect.READ, ["cancelled"]), (Effect.EXEC, [])])
async def test_a_call_that_only_looks_is_given_up_when_nobody_is_there(
    effect: Effect, ended: list[str], bench: Bench
) -> None:
    seen: list[str] = []

    async def handler(ctx: CallContext, arguments: Any) -> dict[str, Any]:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            seen.append("cancelled")
            raise
        return {}

    bench.install(handler, effect=effect)
    bench.call()
    await anyio.wait_all_tasks_blocked()
    assert bench.origin.attachment is not None
    bench.dispatcher.attachment_ended(bench.origin.attachment)
    bench.clock.advance(599)
    bench.dispatcher.sweep(now=bench.clock.now())
    await anyio.wait_all_tasks_blocked()
    assert seen == []
    bench.clock.advance(1)
    bench.dispatcher.sweep(now=bench.clock.now())
    await anyio.wait_all_tasks_blocked()
    assert seen == ended
    assert bench.dispatcher.open_calls == 1 - len(ended)
    assert bench.dispatcher.next_deadline() is None


async def test_who_asks_gets_result_and_streams_and_the_other_no_more(bench: Bench) -> None:
    bench.install(streaming(lambda: None))
    bench.call()
    await bench.expect(wire.End)
    second = bench.attach(b"2")
    bench.dispatcher.ask(wire.Ask(ID, {1: [3, 0, 1 << 20]}), second)
    data = await bench.expect(wire.Data, second)
    assert (data.offset, data.data) == (3, b"tent")
    bench.dispatcher.stream(wire.Credit(ID, 1, 7, 1 << 20, True), bench.origin)  # too late
    await anyio.wait_all_tasks_blocked()
    bench.dispatcher.ask(wire.Ask(ID, {1: [7, 0, 1 << 20]}), second)
    assert (await bench.expect(wire.End, second)).offset == 7
    bench.dispatcher.stream(wire.Credit(ID, 1, 7, 1 << 20, True), second)
    await anyio.wait_all_tasks_blocked()
    bench.dispatcher.ask(wire.Ask(ID, {1: [7, 0, 1 << 20]}), second)
    gone = await bench.expect(wire.Reset, second)
    assert (gone.n, gone.code) == (1, "answer_gone")


async def test_a_stream_that_another_took_to_its_end_ends_for_who_asks_then(bench: Bench) -> None:
    async def two(ctx: CallContext, arguments: Any) -> dict[str, Any]:
        for n in (1, 2):
            ctx.send(n, BytesSource(b"content"))
        return {}

    bench.install(two)
    bench.call()
    await bench.expect(wire.End)
    await anyio.wait_all_tasks_blocked()
    bench.dispatcher.stream(wire.Credit(ID, 1, 7, 1 << 20, True), bench.origin)
    await anyio.wait_all_tasks_blocked()
    second = bench.attach(b"2")
    bench.dispatcher.ask(wire.Ask(ID, {1: [7, 7, 1 << 20]}), second)
    end = await bench.expect(wire.End, second)
    assert (end.n, end.offset, end.start) == (1, 7, 7)
    bench.dispatcher.ask(wire.Ask(ID, {1: [3, 0, 1 << 20]}), second)
    assert (await bench.expect(wire.Reset, second)).code == "answer_gone"


async def test_an_ask_for_what_cannot_be_breaks_off_that_stream(bench: Bench) -> None:
    bench.install(streaming(lambda: None))
    bench.call()
    await bench.expect(wire.End)
    bench.dispatcher.ask(wire.Ask(ID, {1: [1 << 40, 0, 1 << 41]}), bench.origin)
    assert (await bench.expect(wire.Reset)).code == "invalid"


async def test_cancelling_the_dispatcher_ends_every_call() -> None:
    bench = Bench()
    ended: list[str] = []

    async def handler(ctx: CallContext, arguments: Any) -> dict[str, Any]:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("handler")
        return {}

    async with running(bench.dispatcher):
        bench.install(handler)
        bench.call()
        await anyio.wait_all_tasks_blocked()
        assert bench.dispatcher.open_calls == 1
    assert ended == ["handler"]
    assert bench.dispatcher.open_calls == 0
