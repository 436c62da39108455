"""One call over two lives of a sidecar, and calls that are refused."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from callbench import ID, OTHER, Bench, echo, running
from stack import until

from sidecar.clock import ManualClock
from sidecar.context import CallContext, Handler, Resumer
from sidecar.durable.receipts import open_receipts
from sidecar.durable.writer import LogWriter
from sidecar.errors import CallError, Code, Retry, Started
from sidecar.protocol import envelope as wire
from sidecar.protocol.effects import Effect
from sidecar.protocol.receipts import Outcome, Terms
from sidecar.receipts import MemoryReceipts
from sidecar.streaming import BytesSource


@asynccontextmanager
async def life(
    folder: Path,
    handler: Handler,
    *,
    resume: Resumer | None = None,
    clock: ManualClock | None = None,
) -> AsyncIterator[Bench]:
    """A sidecar on this folder. All its calls are cut off at the end, none of them is ended."""
    async with LogWriter() as writer:
        receipts = await open_receipts(folder, writer, clock or ManualClock(), boot=b"b" * 16)
        bench = Bench(receipts, clock=clock)
        async with running(bench.dispatcher):
            bench.dispatcher.recover()
            bench.install(handler, resume=resume)
            yield bench
        await receipts.aclose()


def starting(runs: list[Any], *, note: bytes | None = None) -> Handler:
    """A handler that has effects and comes to no end."""

    async def handler(ctx: CallContext, arguments: Any) -> dict[str, Any]:
        await ctx.started(note)
        runs.append(arguments)
        await anyio.sleep_forever()
        raise AssertionError

    return handler


async def waiting(ctx: CallContext, arguments: Any) -> dict[str, Any]:
    """A handler that never comes to having effects."""
    await anyio.sleep_forever()
    raise AssertionError


async def error_of(bench: Bench) -> CallError:
    return wire.error_from((await bench.expect(wire.Result)).error)


class SlowReceipts(MemoryReceipts):
    """Written when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.write: Callable[[], None] | None = None

    async def begin(
        self,
        call_id: bytes,
        digest: bytes,
        *,
        now_wall: float,
        terms: Terms | None = None,
        on_written: Callable[[], None] | None = None,
    ) -> Outcome:
        self.write = on_written
        return await super().begin(call_id, digest, now_wall=now_wall, terms=terms)


async def test_nobody_is_told_of_a_receipt_before_it_is_written() -> None:
    receipts = SlowReceipts()
    bench = Bench(receipts)
    async with running(bench.dispatcher):
        bench.install(waiting)
        bench.call()
        bench.dispatcher.ask(wire.Ask(ID), bench.origin)
        await anyio.wait_all_tasks_blocked()
        assert bench.said() == []
        assert receipts.write is not None
        receipts.write()
        assert bench.said() == [wire.Accepted(ID), wire.State(ID, "accepted")]


async def test_a_handler_need_not_wait_for_its_receipt() -> None:
    bench = Bench(SlowReceipts())
    async with running(bench.dispatcher):
        bench.install(echo)
        bench.call(5)
        await anyio.wait_all_tasks_blocked()
        assert [type(said) for said in bench.said()] == [wire.Result]


async def test_one_that_had_started_has_an_unknown_outcome_and_keeps_it(tmp_path: Path) -> None:
    runs: list[Any] = []
    async with life(tmp_path, starting(runs)) as bench:
        bench.call(1)
        await until(lambda: runs == [1])
    for _ in range(2):
        async with life(tmp_path, starting(runs)) as bench:
            bench.dispatcher.ask(wire.Ask(ID), bench.origin)
            error = await error_of(bench)
            assert (error.code, error.started) == (Code.OUTCOME_UNKNOWN, Started.UNKNOWN)
            assert error.retry is Retry.NEVER
            bench.call(1)
            assert (await error_of(bench)).code is Code.OUTCOME_UNKNOWN
            bench.call(2)
            assert (await error_of(bench)).code is Code.CONFLICT
    assert runs == [1]


async def test_one_whose_command_can_is_taken_up_with_its_note(tmp_path: Path) -> None:
    runs: list[Any] = []
    go_on = anyio.Event()

    async def resume(ctx: CallContext, note: bytes) -> dict[str, Any]:
        runs.append((ctx.command, note, ctx.credit, ctx.is_resumed))
        await go_on.wait()
        return {"resumed": note}

    async with life(tmp_path, starting(runs, note=b"note")) as bench:
        bench.call(1)
        await until(lambda: runs == [1])
    async with life(tmp_path, echo, resume=resume) as bench:
        assert bench.dispatcher.open_calls == 1
        bench.dispatcher.ask(wire.Ask(ID), bench.origin)
        assert (await bench.expect(wire.State)).state == "started"
        bench.call(1)
        assert await bench.expect(wire.Accepted) == wire.Accepted(ID)
        go_on.set()
        result = await bench.expect(wire.Result)
        assert wire.loads(result.value) == {"resumed": b"note"}
    async with life(tmp_path, echo, resume=resume) as bench:
        bench.call(1)
        assert await bench.expect(wire.Result) == result
    assert runs == [1, ("test", b"note", 1 << 20, True)]


async def test_who_asks_first_still_gets_the_streams_of_one_taken_up_later(
    tmp_path: Path,
) -> None:
    runs: list[Any] = []

    async def resume(ctx: CallContext, note: bytes) -> dict[str, Any]:
        await asked.wait()
        ctx.send(1, BytesSource(b"content"), sent=7)
        return {}

    asked = anyio.Event()
    async with life(tmp_path, starting(runs, note=b"")) as bench:
        bench.call(1)
        await until(lambda: runs == [1])
    async with life(tmp_path, echo, resume=resume) as bench:
        bench.dispatcher.ask(wire.Ask(ID, {1: [3, 0, 1 << 20]}), bench.origin)
        asked.set()
        data = await bench.expect(wire.Data)
        assert (data.offset, data.data) == (3, b"tent")


async def test_the_deadline_of_one_taken_up_counts_from_its_begin(tmp_path: Path) -> None:
    clock, runs = ManualClock(), list[Any]()

    async def resume(ctx: CallContext, note: bytes) -> dict[str, Any]:
        await anyio.sleep_forever()
        raise AssertionError

    async with life(tmp_path, starting(runs, note=b""), clock=clock) as bench:
        bench.call(1, deadline_ms=60_000)
        await until(lambda: runs == [1])
    clock.advance(61)
    async with life(tmp_path, echo, resume=resume, clock=clock) as bench:
        bench.dispatcher.ask(wire.Ask(ID), bench.origin)
        error = await error_of(bench)
        assert (error.code, error.started) == (Code.TIMEOUT, Started.YES)


async def test_one_taken_up_can_be_cancelled(tmp_path: Path) -> None:
    runs: list[Any] = []

    async def resume(ctx: CallContext, note: bytes) -> dict[str, Any]:
        await anyio.sleep_forever()
        raise AssertionError

    async with life(tmp_path, starting(runs, note=b"")) as bench:
        bench.call(1)
        await until(lambda: runs == [1])
    async with life(tmp_path, echo, resume=resume) as bench:
        bench.dispatcher.ask(wire.Ask(ID), bench.origin)
        await bench.expect(wire.State)
        bench.dispatcher.cancel(ID, bench.origin)
        error = await error_of(bench)
        assert (error.code, error.started) == (Code.CANCELLED, Started.YES)


async def test_one_that_had_not_begun_runs_once_when_it_comes_again(tmp_path: Path) -> None:
    runs: list[Any] = []
    async with life(tmp_path, waiting) as bench:
        bench.call(1)
        await bench.expect(wire.Accepted)
    async with life(tmp_path, starting(runs)) as bench:
        assert bench.dispatcher.open_calls == 0
        bench.dispatcher.ask(wire.Ask(ID), bench.origin)
        assert await bench.expect(wire.State) == wire.State(ID, "resend")
        bench.call(2)
        assert (await error_of(bench)).code is Code.CONFLICT
        assert runs == []
        bench.call(1)
        await bench.expect(wire.Accepted)
        bench.call(1)
        await until(lambda: runs == [1])
    async with life(tmp_path, starting(runs)) as bench:
        bench.call(1)
        assert (await error_of(bench)).code is Code.OUTCOME_UNKNOWN
    assert runs == [1]


async def test_one_that_had_not_begun_is_fenced_by_a_cancel(tmp_path: Path) -> None:
    async with life(tmp_path, waiting) as bench:
        bench.call(1)
        await bench.expect(wire.Accepted)
    async with life(tmp_path, echo) as bench:
        bench.dispatcher.cancel(ID, bench.origin)
        error = await error_of(bench)
        assert (error.code, error.started) == (Code.CANCELLED, Started.NO)
    async with life(tmp_path, echo) as bench:
        bench.call(1)
        assert (await error_of(bench)).code is Code.CANCELLED


async def test_new_calls_are_refused_without_a_trace_and_known_ones_answered() -> None:
    bench = Bench()
    async with running(bench.dispatcher):
        bench.install(echo)
        bench.call(1)
        first = await bench.expect(wire.Result)
        ending = CallError(Code.CANCELLED, "the run ends", retry=Retry.SAME_ID)
        bench.dispatcher.refuse_new(ending)
        bench.call(1, id=OTHER)
        error = await error_of(bench)
        assert (error.message, error.started) == ("the run ends", Started.NO)
        bench.call(1)
        assert await bench.expect(wire.Result) == first
        bench.dispatcher.refuse_new(None)
        bench.call(1, id=OTHER)
        assert wire.loads((await bench.expect(wire.Result)).value) == {"echo": 1}


async def test_one_that_had_not_begun_is_refused_as_a_new_one_is(tmp_path: Path) -> None:
    async with life(tmp_path, waiting) as bench:
        bench.call(1)
        await bench.expect(wire.Accepted)
    async with life(tmp_path, echo) as bench:
        bench.dispatcher.refuse_new(CallError(Code.CANCELLED, "the run ends"))
        bench.call(1)
        assert (await error_of(bench)).message == "the run ends"
        bench.dispatcher.refuse_new(None)
        bench.call(1)
        assert wire.loads((await bench.expect(wire.Result)).value) == {"echo": 1}


class FullReceipts(MemoryReceipts):
    """Of which nothing can be put on record."""

    refusal = CallError(Code.NO_SPACE, "no room for receipts", retry=Retry.SAME_ID)


@pytest.mark.parametrize("effect", [Effect.WRITE, Effect.EXEC, Effect.ADMIN])
async def test_what_has_effects_is_refused_where_nothing_goes_on_record(effect: Effect) -> None:
    bench = Bench(FullReceipts())
    async with running(bench.dispatcher):
        bench.install(echo, effect=effect)
        for _ in range(2):
            bench.call(1)
            error = await error_of(bench)
            assert (error.code, error.started) == (Code.NO_SPACE, Started.NO)
            assert error.retry is Retry.SAME_ID


async def test_what_only_reads_goes_on_there() -> None:
    bench = Bench(FullReceipts())
    async with running(bench.dispatcher):
        bench.install(echo, effect=Effect.READ)
        bench.call(1)
        assert wire.loads((await bench.expect(wire.Result)).value) == {"echo": 1}
