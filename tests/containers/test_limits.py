"""What happens at the limits of a container: the program pays, the sidecar works on."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path

import anyio
import pytest
from boxes import STATE, names_of_processes, open_box, until
from podman import Engine

from sidecar.client import CallError, Code, RemoteProcess, Run

EATER = "a=x; while :; do a=$a$a; done"  # more than there is, in half a second
BOMB = "bomb() { while :; do bomb & done; }; bomb"


async def test_memory_runs_out_and_a_program_is_killed(
    engine: Engine, agent_image: str, tmp_path: Path
) -> None:
    async with open_box(engine, agent_image, tmp_path) as box:
        run = await box.attach()
        bystander = await run.start(["sleep", "600"])

        ended = await run.exec(["sh", "-c", EATER])
        assert (ended.status, ended.signal) == (None, signal.SIGKILL)
        assert await box.health() == 0
        assert (await run.exec(["echo", "on"])).stdout == b"on\n"
        assert (await run.processes())[0].state == "running"
        assert run.incarnation == (await run.info())["incarnation"]
        assert (await bystander.kill()).signal == signal.SIGTERM


async def test_a_child_of_a_program_is_killed_before_the_sidecar_too(
    engine: Engine, agent_image: str, tmp_path: Path
) -> None:
    async with open_box(engine, agent_image, tmp_path) as box:
        run = await box.attach()
        ended = await run.exec(["sh", "-c", f"sh -c '{EATER}'; echo $?"])
        assert (ended.status, ended.stdout) == (0, b"137\n")
        assert (await box.state())["Running"]


async def fill(run: Run) -> list[RemoteProcess]:
    """As many programs as may be."""
    programs = []
    with pytest.raises(CallError) as caught:
        while True:
            programs.append(await run.start(["sleep", "600"]))
    assert caught.value.code is Code.LIMIT
    assert caught.value.details["errno"] == "EAGAIN"
    return programs


async def test_at_the_limit_of_processes_all_works_that_needs_none(
    engine: Engine, agent_image: str, tmp_path: Path
) -> None:
    async with open_box(engine, agent_image, tmp_path) as box:
        run = await box.attach()
        programs = await fill(run)
        answers: Counter[str] = Counter()

        async def write_and_read(number: int) -> None:
            content = bytes([number]) * 300_000
            await run.files.write(f"{number}.bin", content)
            assert await run.files.read(f"{number}.bin") == content
            answers["ok"] += 1

        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:  # more at once than there are threads
                for number in range(30):
                    group.start_soon(write_and_read, number)
        assert answers == {"ok": 30}
        assert len(await run.files.list(".")) == 30
        assert len(await run.processes()) == len(programs)
        with pytest.raises(CallError) as caught:
            await run.exec(["true"])
        assert caught.value.code is Code.LIMIT

        for program in programs:
            assert (await program.kill()).signal == signal.SIGTERM
        assert (await run.exec(["true"])).ok
        assert list((await names_of_processes(run)).values()) == ["sidecar"]
        assert not [line for line in await box.log() if "Traceback" in line]


async def test_kill_ends_a_program_that_forks_without_end(
    engine: Engine, agent_image: str, tmp_path: Path
) -> None:
    async with open_box(engine, agent_image, tmp_path) as box:
        run = await box.attach()
        bomb = await run.start(["bash", "-c", BOMB])
        with anyio.fail_after(20), pytest.raises(CallError) as caught:
            while True:
                await run.exec(["true"])
        assert caught.value.code is Code.LIMIT
        await run.ping()

        with anyio.fail_after(20):
            assert (await bomb.kill()).signal in (signal.SIGTERM, signal.SIGKILL)
        assert list((await names_of_processes(run)).values()) == ["sidecar"]
        assert not [line for line in await box.log() if "Traceback" in line]


async def test_a_sidecar_without_room_for_its_state_works_on_and_says_so(
    engine: Engine, agent_image: str, tmp_path: Path
) -> None:
    room = f"--mount=type=tmpfs,destination={STATE}/small,tmpfs-size=512k,tmpfs-mode=1777"
    state = f"{STATE}/small/state"
    async with open_box(engine, agent_image, tmp_path, room, state=state) as box:
        run = await box.attach()
        await run.exec(["sh", "-c", f"head -c 1M /dev/zero > {STATE}/small/ballast; true"])
        for number in range(300):
            await run.files.write(f"{number}.txt", b"x")
        assert "in memory only" in await box.podman(
            "exec", box.name, "/opt/sidecar/bin/sidecar", "health"
        )
        assert (await run.exec(["echo", "on"])).stdout == b"on\n"

        await run.exec(["rm", f"{STATE}/small/ballast"])

        async def has_room() -> bool:
            return (await run.info())["events"]["degraded"] is None

        await until(has_room)
        assert await box.health() == 0
