"""One program's life: its end observed or not, its timeouts, its input, its resizes."""

from __future__ import annotations

import os
import signal

import anyio
import pytest
from procs import alive_with, sleep_of_its_own
from programtable import Bench, read_all
from stack import until

from sidecar.errors import CallError, Code, Invalid
from sidecar.hands.interface import Program, Target, Terminal
from sidecar.processes import process as module
from sidecar.processes.record import Spec, State, describe


async def test_a_program_that_ends_by_itself_is_observed(bench: Bench) -> None:
    process = await bench.run("echo out; echo err >&2; exit 3")
    assert process.state is State.ENDED
    assert process.ended is not None
    assert process.ended.exit is not None
    assert (process.ended.exit.status, process.ended.which) == (3, None)
    assert (await read_all(process), await read_all(process, 2)) == (b"out\n", b"err\n")
    assert not process.is_held
    [ended] = bench.named("exec.ended")
    assert (ended["pid"], ended["status"], ended["signal"]) == (process.pid, 3, None)
    assert bench.named("exec.started") == [{"pid": process.pid}]


async def test_the_end_does_not_wait_for_who_holds_the_pipe(bench: Bench) -> None:
    with sleep_of_its_own() as word:
        process = await bench.run(f"sleep {word} & echo done")
        assert process.ended is not None
        assert process.ended.duration < 1
        assert process.is_held
        assert alive_with(word)
    await until(lambda: not process.is_held)
    assert process.outputs[1].spool.has_ended


async def test_all_input_at_once_is_followed_by_its_end(bench: Bench) -> None:
    small = await bench.run("cat", stdin=True, input=b"small")
    assert await read_all(small) == b"small"
    data = os.urandom(1_000_000)
    large = await bench.run("cat", stdin=True, input=data)
    assert await read_all(large) == data
    unread = await bench.run("exec true", stdin=True, input=data)
    assert unread.state is State.ENDED
    assert {small.id, large.id, unread.id} <= set(bench.hands.inputs_ended)


async def test_input_for_a_terminal_is_typed_and_leaves_it_open(bench: Bench) -> None:
    program = Program(shell="read line; echo got $line; read line; exit 7", terminal=Terminal())
    process = await bench.table.start(
        Spec(program, input=b"typed\n"), id=bench.new_id(), owner=None
    )
    bench.table.adopt_supervision(process)
    await until(lambda: process.outputs[1].size >= len(b"typed\r\ngot typed\r\n"))
    assert process.input is not None
    assert process.input.is_open
    await process.input.write(b"\n")
    assert describe(await process.wait())["status"] == 7


async def test_the_end_of_input_closes_the_copy_of_hands_too(bench: Bench) -> None:
    process = await bench.start("cat", stdin=True)
    assert process.input is not None
    assert await process.input.write(b"x") == 1
    assert bench.hands.inputs_ended == []
    await process.input.end()
    assert bench.hands.inputs_ended == [process.id]
    await process.settled()
    assert bench.hands.inputs_ended == [process.id]


@pytest.mark.parametrize("option, which", [("timeout", "total"), ("idle_timeout", "idle")])
async def test_a_timeout_ends_everything_and_says_which_it_was(
    bench: Bench, option: str, which: str
) -> None:
    with sleep_of_its_own() as word:
        process = await bench.run(f"echo some; setsid sleep {word} & sleep {word}", **{option: 0.1})
        assert alive_with(word) == []
    assert process.ended is not None
    assert process.ended.exit is not None
    assert (process.ended.which, process.ended.exit.signal) == (which, signal.SIGTERM)
    assert await read_all(process) == b"some\n"


async def test_the_earlier_of_two_timeouts_counts(bench: Bench) -> None:
    process = await bench.run("exec sleep 60", timeout=0.1, idle_timeout=30.0)
    assert process.ended is not None
    assert process.ended.which == "total"
    process = await bench.run(
        "echo; sleep 0.1; echo; exec sleep 60", timeout=30.0, idle_timeout=0.2
    )
    assert process.ended is not None
    assert process.ended.which == "idle"
    assert process.ended.duration > 0.3


async def test_daemons_end_with_the_program_or_live_on(bench: Bench) -> None:
    with sleep_of_its_own() as word:
        await bench.run(f"setsid sleep {word} & sleep 0.05", ends_daemons=True, grace=1.0)
        assert alive_with(word) == []
        await bench.run(f"setsid sleep {word} & sleep 0.05")
        assert len(alive_with(word)) == 1


async def test_signals_go_to_the_program(bench: Bench) -> None:
    process = await bench.start(
        "trap 'echo got; exit 4' USR1; echo on; while :; do sleep 0.01; done"
    )
    await until(lambda: process.outputs[1].size == 3)
    await process.signal(signal.SIGUSR1, Target.PROGRAM)
    ended = await process.wait()
    assert describe(ended)["status"] == 4


async def test_a_program_without_a_terminal_has_no_size(bench: Bench) -> None:
    process = await bench.start("exec sleep 60")
    with pytest.raises(Invalid, match="no terminal"):
        await process.resize(24, 80)
    await process.kill(0)


async def test_resizes_are_told_in_order_with_rising_offsets(bench: Bench) -> None:
    spec = Spec(Program(shell="yes | head -c 50000; read line", terminal=Terminal(24, 80)))
    process = await bench.table.start(spec, id=bench.new_id(), owner=None)
    bench.table.adopt_supervision(process)
    async with anyio.create_task_group() as group:
        for rows in range(1, 21):
            group.start_soon(process.resize, rows, 80)
    told = [(one["rows"], one["offset"]) for one in bench.named("exec.resized")]
    assert [rows for rows, _ in told] == list(range(1, 21))
    assert told == sorted(told, key=lambda one: one[1])
    assert [(one.rows, one.offset) for one in process.resizes] == told[-16:]
    await process.kill(0)


async def test_the_terminal_of_a_program_that_ended_has_no_new_size(bench: Bench) -> None:
    spec = Spec(Program(shell="exit 0", terminal=Terminal(24, 80)))
    process = await bench.table.start(spec, id=bench.new_id(), owner=None)
    await process.supervise()
    with pytest.raises(Invalid, match="has ended"):
        await process.resize(50, 100)
    assert (list(process.resizes), bench.named("exec.resized")) == ([], [])


async def test_a_size_that_came_too_late_is_not_told(bench: Bench) -> None:
    """The program ends while hands is asked: nothing says that it ever had this size."""
    spec = Spec(Program(shell="read line", terminal=Terminal(24, 80)))
    process = await bench.table.start(spec, id=bench.new_id(), owner=None)
    bench.table.adopt_supervision(process)
    asked, may_answer = anyio.Event(), anyio.Event()

    async def resize(key: bytes, *, rows: int, cols: int) -> None:
        asked.set()
        await may_answer.wait()

    bench.hands.resize = resize  # type: ignore[attr-defined]

    async def change() -> None:
        with pytest.raises(Invalid, match="has ended"):
            await process.resize(50, 100)

    async with anyio.create_task_group() as group:
        group.start_soon(change)
        await asked.wait()
        await process.kill(0)
        await process.wait()
        may_answer.set()
    assert [name for name, _ in bench.events] == ["exec.started", "exec.ended"]


async def test_what_a_failed_kill_left_is_ended_with_the_program(bench: Bench) -> None:
    kill = bench.hands.kill

    async def refuse(key: bytes, *, grace: float, since: int | None = None) -> None:
        bench.hands.kill = kill  # type: ignore[attr-defined]
        raise CallError(Code.HANDS_AWAY, "hands is not connected")

    with sleep_of_its_own() as word:
        code = f"setsid sleep {word} & read line"
        process = await bench.start(code, stdin=True, ends_daemons=True, grace=1.0)
        bench.hands.kill = refuse  # type: ignore[attr-defined]
        with pytest.raises(CallError, match="not connected"):
            await process.kill(1.0)
        assert process.input is not None
        await process.input.write(b"\n")
        await process.settled()
        assert alive_with(word) == []


# Hands that are away -----------------------------------------------------------------------


async def test_an_end_that_nobody_observed_is_unknown_and_the_output_goes_on(bench: Bench) -> None:
    bench.hands.knows_exits = False
    process = await bench.run("(sleep 0.2; echo later) & echo now")
    assert process.state is State.UNKNOWN
    assert process.ended is not None
    assert process.ended.exit is None
    assert process.unknown().code is Code.OUTCOME_UNKNOWN
    assert "hands was restarted meanwhile" in process.unknown().message
    await until(lambda: process.outputs[1].size == 10)
    assert await read_all(process) == b"now\nlater\n"
    [told] = bench.named("exec.ended")
    assert (told["status"], told["signal"], told["outcome"]) == (None, None, "unknown")


async def test_hands_that_come_back_in_time_change_nothing(bench: Bench) -> None:
    process = await bench.start("read line; exit 5", stdin=True)
    bench.hands.leave()
    await until(lambda: process.state is State.UNKNOWN)
    assert process.running
    bench.hands.come_back()
    await bench.table.adopt_known()
    assert process.input is not None
    await process.input.write(b"\n")
    assert describe(await process.wait())["status"] == 5
    assert len(bench.named("exec.ended")) == 1


async def test_hands_that_stay_away_leave_an_unknown_end_and_may_yet_revive_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AWAY_TIME", 0.05)
    process = await bench.start("read line; exit 6", stdin=True)
    bench.hands.leave()
    with anyio.fail_after(5):
        ended = await process.settled()
    assert (ended.exit, process.state) == (None, State.UNKNOWN)
    bench.hands.come_back()
    await bench.table.adopt_known()
    assert process.state is State.RUNNING
    assert process.input is not None
    await process.input.write(b"\n")  # which was left open
    assert describe(await process.wait())["status"] == 6


async def test_a_call_that_is_over_kills_and_records_the_end(bench: Bench) -> None:
    spec = Spec(Program(shell="exec sleep 60"), grace=0.5)
    process = await bench.table.start(spec, id=bench.new_id(), owner=None)
    with anyio.move_on_after(0.05) as scope:
        try:
            await process.supervise()
        except anyio.get_cancelled_exc_class():
            await process.abandon()
            raise
    assert scope.cancelled_caught
    assert process.is_settled
    assert [one["signal"] for one in bench.named("exec.ended")] == [signal.SIGTERM]
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


async def test_what_comes_after_the_end_of_hands_is_a_coded_error(bench: Bench) -> None:
    await bench.hands.aclose()
    with pytest.raises(CallError) as caught:
        await bench.table.start(Spec(Program(shell="true")), id=bench.new_id(), owner=None)
    assert caught.value.code is Code.HANDS_AWAY
