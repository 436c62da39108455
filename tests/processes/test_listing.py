"""What `exec.list` says: bounded, and with what it leaves out in fields."""

from __future__ import annotations

from programtable import Bench

from sidecar.hands.interface import Program, Survivor, Terminal
from sidecar.processes.listing import entry
from sidecar.processes.record import Spec


async def test_a_program_that_runs(bench: Bench) -> None:
    process = await bench.start("exec sleep 60", stdin=True)
    found = entry(process, [], now=process.began + 2.5)
    assert found == {
        "exec": process.id,
        "pid": process.pid,
        "state": "running",
        "owner": "me",
        "adopted": False,
        "shell": "exec sleep 60",
        "cut": 0,
        "cwd": None,
        "began_ms": int(process.began_wall * 1000),
        "ended_ms": None,
        "age": 2.5,
        "input": True,
        "terminal": None,
        "stdout": {"size": 0, "dropped": 0, "readers": 0, "held": True},
        "stderr": {"size": 0, "dropped": 0, "readers": 0, "held": True},
        "survivors": [],
        "more_survivors": 0,
    }
    await process.kill(0)


async def test_a_program_that_ended_and_left_many_behind(bench: Bench) -> None:
    process = await bench.run("echo x; exit 2")
    left = [Survivor(pid, 0, b"caf\xe9") for pid in range(40)]
    found = entry(process, left, now=process.began)
    assert (found["state"], found["status"], found["signal"]) == ("ended", 2, None)
    assert (found["which"], found["input"]) == (None, False)
    assert found["stdout"] == {"size": 2, "dropped": 0, "readers": 0, "held": False}
    assert found["survivors"][0] == {"pid": 0, "name": "caf\\xe9"}
    assert (len(found["survivors"]), found["more_survivors"]) == (32, 8)
    assert found["ended_ms"] >= found["began_ms"]


async def test_a_terminal_has_a_size_that_is_the_latest(bench: Bench) -> None:
    spec = Spec(Program(argv=["sleep", "60"], terminal=Terminal(30, 100), cwd="."))
    process = await bench.table.start(spec, id=bench.new_id(), owner=None)
    bench.table.adopt_supervision(process)
    found = entry(process, [], now=process.began)
    assert found["terminal"] == {"rows": 30, "cols": 100, "resizes": []}
    assert ("stderr" in found, found["cwd"], found["owner"]) == (False, ".", None)
    await process.resize(40, 120)
    found = entry(process, [], now=process.began)
    assert found["terminal"] == {"rows": 40, "cols": 120, "resizes": [[0, 40, 120]]}
    await process.kill(0)
