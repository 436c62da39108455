"""Children of tools keep their statuses where orphans are reaped, and leave nothing behind."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import anyio
import pytest
from stack import until

from sidecar.hands.interface import Program
from sidecar.hands.local import orphans
from sidecar.hands.local.child import ERROR_BYTES, Child
from sidecar.hands.local.hands import LocalHands
from sidecar.hands.local.proc import read_children
from sidecar.hands.local.stop import Stop, Stopped


def run_some(root: Path, statuses: list[int], *, times: int) -> None:
    stop = Stop()
    folder = os.open(root, os.O_PATH)
    for _ in range(times):
        with Child(["sh", "-c", "exit 7"], directory=folder) as child:
            assert child.read(stop, 100) == b""
            statuses.append(child.wait(stop))
    os.close(folder)
    stop.close()


async def test_statuses_while_orphans_are_reaped(root: Path) -> None:
    statuses: list[int] = []
    async with LocalHands.open_root(str(root), adopt=True) as hands:
        many = "for i in $(seq 100); do (setsid true & true &); done; exit 3"
        running = await hands.spawn(Program(shell=many), key=b"many")
        threads = [
            threading.Thread(target=run_some, args=[root, statuses], kwargs={"times": 15})
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        assert (await hands.wait(b"many")).status == 3
        await until(lambda: not any(thread.is_alive() for thread in threads))
        await until(lambda: not read_children())
        for descriptor in (running.stdout, running.stderr):
            assert descriptor is not None
            os.close(descriptor)
    assert statuses == [7] * 45


async def test_orphans_wait_while_a_child_is_started(root: Path) -> None:
    async with LocalHands.open_root(str(root), adopt=True):
        held = orphans.undisturbed()
        held.__enter__()
        orphan = os.spawnlp(os.P_NOWAIT, "true", "true")
        await anyio.sleep(0.05)  # it has ended, and several tries were made
        assert read_children() == [orphan]
        held.__exit__(None, None, None)
        await until(lambda: not read_children())


def test_it_is_killed_with_what_it_started(root: Path) -> None:
    stop = Stop()
    folder = os.open(root, os.O_PATH)
    with pytest.raises(Stopped), Child(["sh", "-c", "sleep 60 & wait"], directory=folder) as child:
        stop.request()
        child.read(stop, 100)
    assert child.status == -9
    os.close(folder)
    stop.close()


def test_much_on_standard_error_is_read_and_the_first_of_it_kept(root: Path) -> None:
    stop = Stop()
    folder = os.open(root, os.O_PATH)
    script = "head -c 1000000 /dev/zero >&2; pwd; exit 1"
    with Child(["sh", "-c", script], directory=folder) as child:
        assert child.read(stop, 1000) == os.fsencode(root) + b"\n"
        assert child.wait(stop) == 1
    assert child.error == bytes(ERROR_BYTES)
    os.close(folder)
    stop.close()


def test_its_environment_has_none_of_our_settings(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIDECAR_TOKEN", "secret")
    stop = Stop()
    folder = os.open(root, os.O_PATH)
    with Child(["env"], directory=folder) as child:
        output = b""
        while data := child.read(stop, 65536):
            output += data
        assert child.wait(stop) == 0
    assert b"PATH=" in output
    assert b"SIDECAR_" not in output
    os.close(folder)
    stop.close()
