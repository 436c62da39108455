"""How much may leave, through the whole stack."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from stack import PATIENCE, RUN, Stack, open_stack

from sidecar.client import CallError, Code, Controller, Retry, Run
from sidecar.client.program import Limits
from sidecar.protocol.names import Scope

KIB, MIB = 1024, 1024 * 1024


@asynccontextmanager
async def limited(folder: Path, **limits: Any) -> AsyncIterator[tuple[Stack, Run]]:
    async with open_stack(folder, **limits) as stack:
        yield stack, await stack.attach()


def check_denied(error: CallError, which: str, limit: int) -> None:
    assert (error.code, error.retry) == (Code.DENIED, Retry.NEVER)
    assert (error.details["which"], error.details["limit"]) == (which, limit)
    assert 0 <= error.details["spent"] <= limit


async def test_what_leaves_is_told_by_info_and_unlimited_unless_it_is_set(tmp_path: Path) -> None:
    async with limited(tmp_path) as (stack, run):
        (stack.workspace / "file").write_bytes(bytes(300_000))
        await run.files.read("file")
        info = (await run.info())["egress"]
    assert (info["call_limit"], info["run_limit"]) == (None, None)
    assert 300_000 < info["spent"] < 300_400  # and the answer, which tells size and etag


async def test_a_file_that_is_too_large_is_refused_before_its_first_byte(tmp_path: Path) -> None:
    async with limited(tmp_path, egress_call=MIB) as (stack, run):
        (stack.workspace / "file").write_bytes(bytes(2 * MIB))
        for arguments in ({"path": "file"}, {"paths": ["file"]}):
            async with run.open("files.read", arguments) as call:
                with pytest.raises(CallError) as caught:
                    await call.wait()
                check_denied(caught.value, "call", MIB)
                assert call.receivers == {}
        assert len(await run.files.read("file", length=500 * KIB)) == 500 * KIB
        assert (await run.info())["egress"]["spent"] < 501 * KIB


async def test_many_small_answers_spend_what_the_run_may(tmp_path: Path) -> None:
    async with limited(tmp_path, egress_run=100 * KIB) as (stack, run):
        (stack.workspace / "file").write_bytes(bytes(10 * KIB))
        for _ in range(9):
            await run.files.read("file")
        for _ in range(2):
            with pytest.raises(CallError) as caught:
                await run.files.read("file")
            check_denied(caught.value, "run", 100 * KIB)
        await run.files.stat("file")  # what is left is enough for that
        await run.files.write("other", b"what comes in is free, and that it was done is told")
        spent = (await run.info())["egress"]["spent"]
        assert 90 * KIB < spent <= 100 * KIB


async def test_two_at_once_get_no_more_than_one_might(tmp_path: Path) -> None:
    async with limited(tmp_path, egress_run=3 * MIB) as (stack, run):
        (stack.workspace / "file").write_bytes(bytes(2 * MIB))
        got = {"a": 0, "b": 0}
        errors = []

        async def read(name: str) -> None:
            try:
                async with run.files.open("file") as download:
                    async for chunk in download:
                        got[name] += len(chunk)
            except CallError as error:
                errors.append(error)

        async with anyio.create_task_group() as group:
            for name in got:
                group.start_soon(read, name)
        assert sum(got.values()) <= 3 * MIB
        assert 1 <= len(errors) <= 2
        check_denied(errors[0], "run", 3 * MIB)
        assert 2 * MIB <= (await run.info())["egress"]["spent"] <= 3 * MIB


PRINTING = "head -c 2000000 /dev/zero; echo done > ended; exit 7"


async def test_a_program_whose_output_may_not_leave_runs_on_and_its_exit_is_told(
    tmp_path: Path,
) -> None:
    async with limited(tmp_path, egress_call=MIB) as (stack, run):
        async with run.process(PRINTING, on_full="hold") as program:
            got = 0
            with pytest.raises(CallError) as caught:
                async for chunk in program.stdout:
                    got += len(chunk)
            check_denied(caught.value, "call", MIB)
            completed = await program.wait()
        assert completed.returncode == 7
        assert (stack.workspace / "ended").read_text() == "done\n"
        assert 0 < got <= MIB


async def test_output_that_would_stand_in_the_answer_does_not_leave_either(tmp_path: Path) -> None:
    async with limited(tmp_path, egress_call=10 * KIB) as (stack, run):
        with pytest.raises(CallError) as caught:
            await run.exec("head -c 20000 /dev/zero; exit 7")
        check_denied(caught.value, "call", 10 * KIB)
        (info,) = await run.processes()
        process = await run.find(info.id)
        assert (await process.wait()).returncode == 7
        await process.read(length=10 * KIB)
        with pytest.raises(CallError) as caught:
            await process.read(length=10 * KIB + 1)
        check_denied(caught.value, "call", 10 * KIB)
        async with run.shell() as shell:
            assert (await shell.run("echo small")).output == b"small\n"
            with pytest.raises(CallError) as caught:
                await shell.run("head -c 20000 /dev/zero")
            check_denied(caught.value, "call", 10 * KIB)
            assert (await shell.run("echo still there")).output == b"still there\n"


async def test_who_only_watches_spends_of_the_same(tmp_path: Path) -> None:
    async with limited(tmp_path, egress_run=100 * KIB) as (stack, run):
        (stack.workspace / "file").write_bytes(bytes(80 * KIB))
        url = stack.url("watcher", scope=Scope.WATCH)
        async with Controller.connect(url, controller="watcher", watch=True) as controller:
            watcher = await controller.attach(RUN, timeout=PATIENCE)
            await watcher.files.read("file")
        with pytest.raises(CallError) as caught:
            await run.files.read("file")
        check_denied(caught.value, "run", 100 * KIB)


async def test_what_the_run_has_spent_is_spent_after_kill_9(tmp_path: Path) -> None:
    state = str(tmp_path / "state")
    async with open_stack(tmp_path, sidecars=0) as stack:
        for is_first in (True, False):
            child = stack.start_sidecar_process(state=state, egress_run=100 * KIB)
            run = await stack.attach("first" if is_first else "second")
            (stack.workspace / "file").write_bytes(bytes(80 * KIB))
            if is_first:
                await run.files.read("file")
            else:
                with pytest.raises(CallError) as caught:
                    await run.files.read("file")
                check_denied(caught.value, "run", 100 * KIB)
            child.kill()
            child.wait()


async def test_the_words_of_a_shell_that_does_not_start_count_too(tmp_path: Path) -> None:
    async with limited(tmp_path, egress_call=1) as (_, run):
        with pytest.raises(CallError) as caught:
            async with run.shell(limits=Limits(files=3)):
                raise AssertionError("it did start")
        assert caught.value.code is Code.UNSUPPORTED
        assert caught.value.message.endswith(": what it said may not leave")
