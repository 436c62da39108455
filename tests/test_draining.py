"""The end of a run: told by `run.end`, by the operation `drain`, or by a signal."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from rawpeer import raw_peer
from stack import PATIENCE, RUN, Stack, is_listening, open_stack, until

from sidecar.client import CallError, Code, Controller, Event, Run
from sidecar.errors import Retry
from sidecar.hub import Hub, HubSettings
from sidecar.localsocket import ask
from sidecar.protocol import envelope as wire
from sidecar.protocol.names import Scope
from sidecar.streaming import BytesSource

pytestmark = pytest.mark.slow  # real processes, killed and started again


async def start(stack: Stack, **options: Any) -> tuple[subprocess.Popen[bytes], Run]:
    """A sidecar process, and a controller attached to it."""
    async with raw_peer(stack.hub, "watcher") as peer:
        child = stack.start_sidecar_process(**options)
        await peer.expect(wire.Hello, timeout=PATIENCE)
    return child, await stack.attach()


async def status_of(child: subprocess.Popen[bytes]) -> int:
    with anyio.fail_after(PATIENCE):
        return await anyio.to_thread.run_sync(child.wait, abandon_on_cancel=True)


def note_in(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "state.json").read_text())
    assert isinstance(found, dict)
    return found


async def test_a_run_that_was_ended_is_not_served_again(tmp_path: Path) -> None:
    async with open_stack(tmp_path, sidecars=0) as stack:
        state = tmp_path / "state-0"
        child, run = await start(stack)
        await until(lambda: note_in(state)["state"] == "running")
        assert (await run.exec(["true"])).status == 0
        assert await run.end() == {
            **{"state": "draining", "time_left": pytest.approx(20, abs=1)},
            **{"calls": 1, "events": 0, "messages": pytest.approx(1, abs=1)},
        }, "the call that waits for its answer is this one"
        assert await status_of(child) == 0
        note = note_in(state)
        assert (note["state"], note["told_by"], note["exit_status"]) == ("ended", "run.end", 0)
        assert (note["pid"], note["left_over"]) == (child.pid, None)
        assert note["events"]["written"] == note["events"]["last"] == 4

        again = stack.start_sidecar_process(state=str(state))
        assert await status_of(again) == 0
        assert note_in(state) == note


async def test_open_calls_may_end_and_new_ones_are_refused(tmp_path: Path) -> None:
    async with open_stack(tmp_path, sidecars=0) as stack:
        child, run = await start(stack)
        async with run.open(
            "exec.run", {"shell": "read line; echo ended", "stdin": "stream"}
        ) as call:
            await until(lambda: call.accepted)
            waits_for = await run.end(timeout=8)
            assert waits_for["calls"] == 2
            with pytest.raises(CallError) as caught:
                await run.exec(["true"])
            assert (caught.value.code, caught.value.retry) == (Code.ENDING, Retry.NEVER)
            assert child.poll() is None
            run.send(call, 0, BytesSource(b"\n"))
            assert (await call.wait())["status"] == 0
        assert await status_of(child) == 0
        assert note_in(tmp_path / "state-0")["why"] is None


async def test_what_does_not_end_in_time_is_ended_and_its_callers_are_told(tmp_path: Path) -> None:
    async with open_stack(tmp_path, sidecars=0) as stack:
        child, run = await start(stack)
        await run.start("trap '' TERM; while :; do sleep 1; done")
        names: list[str] = []
        async with run.events() as events, run.open("exec.run", {"shell": "sleep 600"}) as call:
            await until(lambda: call.accepted)
            await run.end(timeout=6)
            with pytest.raises(CallError) as caught:
                await call.wait()
            assert caught.value.code is Code.CANCELLED
            async for event in events:
                assert isinstance(event, Event)
                names.append(event.name)
                if names.count("exec.ended") == 2:
                    break
        assert await status_of(child) == 0
        note = note_in(tmp_path / "state-0")
        assert note["why"] == "1 open calls and 2 programs were ended"
        assert (note["exit_status"], note["left_over"]) == (0, None)


async def test_a_signal_stops_the_sidecar_and_not_the_run(tmp_path: Path) -> None:
    async with open_stack(tmp_path, sidecars=0) as stack:
        state = tmp_path / "state-0"
        child, _ = await start(stack)
        child.send_signal(signal.SIGTERM)
        assert await status_of(child) == 0
        note = note_in(state)
        assert (note["state"], note["told_by"], note["exit_status"]) == ("stopped", "signal", 0)
        child, run = await start(stack, state=str(state))
        assert (await run.exec(["true"])).status == 0
        await until(lambda: note_in(state)["state"] == "running")
        assert note_in(state)["exit_status"] is None


async def test_a_durable_reader_is_waited_for_and_what_it_did_not_ack_is_told(
    tmp_path: Path,
) -> None:
    async with open_stack(tmp_path, sidecars=0) as stack:
        child, run = await start(stack, drain=0.5)
        async with run.events(reader="platform") as events:
            await anext(events)
            await run.end()
            assert await status_of(child) == 75
        note = note_in(tmp_path / "state-0")
        assert (note["state"], note["exit_status"]) == ("ended", 75)
        assert note["left_over"]["events"] == note["events"]["last"] - (
            note["events"]["acked"] or 0
        )
        assert note["left_over"]["events"] > 0


async def test_who_acks_all_is_the_end_of_the_wait(tmp_path: Path) -> None:
    async with open_stack(tmp_path, sidecars=0) as stack:
        child, run = await start(stack)
        async with run.events(reader="platform") as events, anyio.create_task_group() as group:

            async def follow() -> None:
                async for _ in events:
                    pass

            group.start_soon(follow)
            await run.end()
            assert await status_of(child) == 0
            group.cancel_scope.cancel()
        note = note_in(tmp_path / "state-0")
        assert note["events"]["acked"] == note["events"]["last"] >= 2


async def test_killed_while_it_drains_it_goes_on_with_that(tmp_path: Path) -> None:
    async with open_stack(tmp_path, sidecars=0) as stack:
        state = tmp_path / "state-0"
        child, run = await start(stack)
        async with run.open("exec.run", {"shell": "sleep 600"}) as call:
            await until(lambda: call.accepted)
            await run.end(timeout=600)
            child.kill()
            await status_of(child)
        assert note_in(state)["state"] == "draining"
        child, run = await start(stack, state=str(state))
        assert await status_of(child) == 0
        assert (note_in(state)["state"], note_in(state)["told_by"]) == ("ended", "run.end")


async def test_a_run_that_the_platform_has_ended_is_drained_and_not_served_again(
    tmp_path: Path,
) -> None:
    hub = Hub(HubSettings(platform=True, token_life=2.0))
    async with open_stack(tmp_path, sidecars=0, hub=hub) as stack:
        state = tmp_path / "state-0"
        child, run = await start(stack, **stack.endpoint())
        assert (await run.exec(["true"])).status == 0
        hub.platform.end(RUN)
        assert await status_of(child) == 0
        note = note_in(state)
        assert (note["state"], note["told_by"], note["left_over"]) == ("ended", "platform", None)
        assert note["generation"] == 1
        again = stack.start_sidecar_process(state=str(state))
        assert await status_of(again) == 0
        assert note_in(state) == note


async def test_without_a_channel_it_ends_with_69_and_says_what_was_left(tmp_path: Path) -> None:
    async with open_stack(tmp_path, sidecars=0) as stack:
        state = tmp_path / "state-0"
        child = stack.start_sidecar_process(hub="ws://127.0.0.1:9/client/hubs/x")
        await until(lambda: is_listening(state / "admin.sock"))
        answer = await ask(state / "admin.sock", {"op": "drain", "timeout": 0.2})
        assert answer["state"] == "draining"
        assert await status_of(child) == 69
        note = note_in(state)
        assert (note["state"], note["told_by"], note["exit_status"]) == ("ended", "drain", 69)


async def test_a_hub_that_has_gone_is_no_channel_either(tmp_path: Path) -> None:
    hub = Hub(HubSettings())
    async with open_stack(tmp_path, sidecars=0, hub=hub) as stack:
        state = tmp_path / "state-0"
        child, run = await start(stack)
        await until(lambda: is_listening(state / "admin.sock"))
        async with run.open("exec.run", {"shell": "sleep 600"}) as call:
            await until(lambda: call.accepted)
            await hub.leave(PATIENCE)
            await ask(state / "admin.sock", {"op": "drain", "timeout": 0.5})
            assert await status_of(child) == 69, "nobody heard how the call ended"
        assert note_in(state)["exit_status"] == 69


@pytest.mark.parametrize("timeout", [10**400, 1e300, -1, True, "long"])
async def test_a_time_that_makes_no_sense_is_as_it_is_set(tmp_path: Path, timeout: Any) -> None:
    async with open_stack(tmp_path, sidecars=0) as stack:
        state = tmp_path / "state-0"
        child = stack.start_sidecar_process(drain=0.5)
        await until(lambda: is_listening(state / "admin.sock"))
        answer = await ask(state / "admin.sock", {"op": "drain", "timeout": timeout})
        assert answer["time_left"] <= 0.5
        assert await status_of(child) == 0


async def test_only_the_operator_may_drain(tmp_path: Path) -> None:
    async with open_stack(tmp_path, sidecars=0) as stack:
        state = tmp_path / "state-0"
        await start(stack)
        await until(lambda: is_listening(state / "agent.sock"))
        answer = await ask(state / "agent.sock", {"op": "drain"})
        assert answer["error"] == "invalid"
        assert note_in(state)["state"] in ("starting", "running")


async def test_a_watcher_may_not_end_a_run(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack:
        url = stack.url("eye", scope=Scope.WATCH)
        async with Controller.connect(url, controller="eye", watch=True) as controller:
            run = await controller.attach("demo", timeout=PATIENCE)
            with pytest.raises(CallError) as caught:
                await run.end()
    assert caught.value.code is Code.FORBIDDEN
