"""`sidecar run` as a process: from hello to the end, and what it leaves behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from rawpeer import raw_peer
from stack import PATIENCE, RUN, Stack, open_stack, until

from sidecar import serving
from sidecar.client import CallError, Code, Event
from sidecar.localsocket import ask
from sidecar.protocol import envelope as wire
from sidecar.protocol.names import sidecar_grant


async def status_of(child: subprocess.Popen[bytes]) -> int:
    with anyio.fail_after(PATIENCE):
        return await anyio.to_thread.run_sync(child.wait, abandon_on_cancel=True)


async def start(stack: Stack) -> subprocess.Popen[bytes]:
    """A sidecar process that has said hello."""
    async with raw_peer(stack.hub, "watcher") as peer:
        child = stack.start_sidecar_process()
        await peer.expect(wire.Hello, timeout=PATIENCE)
    return child


async def health_at(path: Path) -> dict[str, Any]:
    """What a sidecar tells at one of its sockets, which it may still be opening."""
    with anyio.fail_after(PATIENCE):
        while True:
            try:
                return await ask(path, {"op": "health"})
            except OSError:
                await anyio.sleep(0.01)


async def test_it_serves_until_sigterm_and_ends_with_0(tmp_path: Path) -> None:
    async with open_stack(tmp_path, sidecars=0) as stack:
        child = await start(stack)
        run = await stack.attach()
        assert (await run.exec("echo $$")).status == 0
        names: list[str] = []
        async with run.events() as events:
            async for event in events:
                assert isinstance(event, Event)
                names.append(event.name)
                if event.name == "exec.ended":
                    child.send_signal(signal.SIGTERM)
                if event.name == "sidecar.draining":
                    break
        assert names == ["sidecar.started", "exec.started", "exec.ended", "sidecar.draining"]
        assert await status_of(child) == 0
        left = [
            "egress",
            "journal",
            "lock",
            "programs",
            "receipts",
            "spools",
            "state.json",
            "uploads",
        ]
        assert sorted(os.listdir(tmp_path / "state-0")) == left


async def test_its_programs_end_with_it(tmp_path: Path) -> None:
    async with open_stack(tmp_path, sidecars=0) as stack:
        child = await start(stack)
        run = await stack.attach()
        async with run.process("echo $$; exec sleep 600") as program:
            _, line = await anext(program.output())
            child.send_signal(signal.SIGINT)
            assert await status_of(child) == 0
            assert not Path(f"/proc/{int(line)}").exists()


async def test_a_signal_while_it_starts_ends_it_without_a_trace(tmp_path: Path) -> None:
    async with open_stack(tmp_path, sidecars=0) as stack:
        async with raw_peer(stack.hub, "watcher") as peer:
            child = stack.start_sidecar_process()
            await peer.expect(wire.Hello, timeout=PATIENCE)
            child.terminate()  # it is just loading what serves calls
        assert await status_of(child) == 0
        left = set(os.listdir(tmp_path / "state-0"))
        assert left >= {"lock", "state.json"}
        assert left.isdisjoint({"admin.sock", "agent.sock"})


async def test_who_calls_at_the_first_hello_is_answered(tmp_path: Path) -> None:
    async with open_stack(tmp_path, sidecars=0) as stack:
        async with raw_peer(stack.hub) as peer:
            stack.start_sidecar_process()
            await peer.expect(wire.Hello, timeout=PATIENCE)
            await peer.attach()
            await peer.result(await peer.call("exec.run", {"shell": "exit 0"}))


async def test_a_workspace_lost_after_hello_ends_it(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack, AsyncExitStack() as exits:
        stack.workspace.rmdir()
        with pytest.raises(CallError) as caught:
            await serving.serve(stack.sidecar, exits)
    assert caught.value.code is Code.NOT_FOUND


@pytest.mark.slow
async def test_without_a_hub_it_ends_with_69(tmp_path: Path) -> None:
    async with open_stack(tmp_path, sidecars=0) as stack:
        settings = stack.settings()
        child = stack.start_child(
            *("-m", "sidecar", "run", "--drain", "0.1"),
            SIDECAR_RUN=RUN,
            SIDECAR_TOKEN=f"ws://127.0.0.1:9/client/hubs/x?access_token={settings.token}",
            SIDECAR_WORKSPACE=settings.workspace,
            SIDECAR_STATE=settings.state,
        )
        admin = settings.state_folder / "admin.sock"
        health = await health_at(admin)
        assert (health["healthy"], health["channel"]["reason"]) == (False, "network")
        child.terminate()
        assert await status_of(child) == 69


async def test_both_sockets_tell_its_health(tmp_path: Path) -> None:
    async with open_stack(tmp_path, sidecars=0) as stack:
        child = await start(stack)
        for name in ("admin.sock", "agent.sock"):
            health = await health_at(tmp_path / "state-0" / name)
            assert (health["healthy"], health["run"], health["pid"]) == (True, RUN, child.pid)


async def test_a_crash_loses_what_ran_and_says_so(tmp_path: Path) -> None:
    async with open_stack(tmp_path, sidecars=0) as stack:
        child = await start(stack)
        run = await stack.attach()
        before = run.incarnation
        async with run.open("exec.run", {"shell": "echo ran >> count; sleep 2"}) as call:
            await until((stack.workspace / "count").exists)
            await until(lambda: call.accepted)
            child.kill()
            await status_of(child)
            stack.start_sidecar_process()
            with pytest.raises(CallError) as caught:
                with anyio.fail_after(PATIENCE):
                    await call.wait()
        assert caught.value.code is Code.OUTCOME_UNKNOWN
        assert run.incarnation != before
        assert (stack.workspace / "count").read_text() == "ran\n"
        assert (await run.exec(["true"])).status == 0


@pytest.mark.slow
async def test_a_new_token_in_the_file_is_dialled_with_at_once(tmp_path: Path) -> None:
    async with open_stack(tmp_path, sidecars=0) as stack:
        file = tmp_path / "token"
        file.write_text("")
        settings = stack.settings()
        stack.start_child(
            *("-m", "sidecar", "run"),
            SIDECAR_RUN=RUN,
            SIDECAR_TOKEN_FILE=str(file),
            SIDECAR_WORKSPACE=settings.workspace,
            SIDECAR_STATE=settings.state,
        )
        admin = settings.state_folder / "admin.sock"
        await health_at(admin)
        url, token = stack.hub.address.client_url, stack.hub.mint(sidecar_grant(RUN))
        file.write_text(json.dumps({"url": url, "token": token}))
        run = await stack.attach()
        assert (await run.info())["channel"]["state"] == "open"


async def test_the_token_is_in_no_argument_no_environment_of_programs_and_no_core(
    tmp_path: Path,
) -> None:
    async with open_stack(tmp_path, sidecars=0) as stack:
        child = await start(stack)
        run = await stack.attach()
        printed = await run.exec("env; ulimit -c")
        variables = re.findall(rb"^SIDECAR\w+", printed.stdout, re.MULTILINE)
        assert variables == [b"SIDECAR_EXEC_ID"], "by which it is known"
        assert printed.stdout.splitlines()[-1] == b"0"
        assert b"eyJ" not in Path(f"/proc/{child.pid}/cmdline").read_bytes()
        # Not dumpable: its files in /proc belong to root, whoever it runs as (proc(5)).
        assert os.stat(f"/proc/{child.pid}/environ").st_uid == 0


async def run_to_its_end(stack: Stack, state: Path) -> tuple[int, str]:
    """`sidecar run` on what lies in `state`: its exit status, and its log."""
    settings = stack.settings(state=str(state))
    done = await anyio.to_thread.run_sync(
        lambda: subprocess.run(
            [sys.executable, "-m", "sidecar", "run"],
            env={
                **os.environ,
                "SIDECAR_RUN": settings.run,
                "SIDECAR_HUB": settings.hub,
                "SIDECAR_TOKEN": settings.token,
                "SIDECAR_WORKSPACE": settings.workspace,
                "SIDECAR_STATE": settings.state,
            },
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    )
    return done.returncode, done.stderr


async def test_a_state_of_another_run_ends_it_with_77_before_it_dials(tmp_path: Path) -> None:
    async with open_stack(tmp_path, sidecars=0) as stack:
        child = stack.start_sidecar_process(run="other")
        await health_at(tmp_path / "state-0" / "admin.sock")
        child.terminate()
        assert await status_of(child) == 0
        status, log = await run_to_its_end(stack, tmp_path / "state-0")
        assert status == 77
        [sentence] = log.splitlines()
        assert "holds what belongs to run 'other', and this is run 'demo'" in sentence
        assert "channel open" not in log


async def test_a_journal_that_cannot_be_used_ends_it_with_77_and_one_sentence(
    tmp_path: Path,
) -> None:
    async with open_stack(tmp_path, sidecars=0) as stack:
        state = tmp_path / "state-0"
        (state / "journal" / "mark").mkdir(parents=True)
        status, log = await run_to_its_end(stack, state)
        assert status == 77
        assert "Traceback" not in log
        assert log.splitlines()[-1].startswith(f"sidecar run: {state / 'journal'}")
        note = json.loads((state / "state.json").read_text())
        assert (note["state"], note["exit_status"]) == ("stopped", 77)
        assert str(state / "journal") in note["why"]
