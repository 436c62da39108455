"""What is kept of a program that was started: bounded, and enough to know it again."""

from __future__ import annotations

import pytest
from programtable import Bench

from sidecar.hands.interface import Program, Terminal
from sidecar.processes.record import Spec, command_of


@pytest.mark.parametrize(
    "program, expected",
    [
        (Program(argv=["a", b"b\xff"]), {"argv": ["a", b"b\xff"], "cut": 0}),
        (Program(shell="echo"), {"shell": "echo", "cut": 0}),
        (Program(), {"argv": [], "cut": 0}),
        (Program(shell="x" * 1030), {"shell": "x" * 1024, "cut": 6}),
        (Program(argv=["x" * 1030, "y"]), {"argv": ["x" * 1024], "cut": 7}),
        (Program(argv=[b"x" * 1030]), {"argv": [b"x" * 1024], "cut": 6}),
        (Program(argv=["\u20ac" * 400]), {"argv": ["\u20ac" * 341], "cut": 177}),
        (Program(argv=["ab"] * 400), {"argv": ["ab"] * 341 + ["a"], "cut": 117}),
        (Program(argv=["\ud800"]), {"argv": ["?"], "cut": 0}),
    ],
)
def test_a_command_is_cut_between_characters(program: Program, expected: object) -> None:
    assert command_of(program) == expected


def test_a_spec_that_was_started_keeps_no_words() -> None:
    terminal = Terminal(30, 100)
    program = Program(argv=["a"] * 60_000, env={"A": "b"}, cwd="c", terminal=terminal)
    spec = Spec(program, input=b"x" * 1000, timeout=5.0, is_brief=True)
    assert spec.once_started() == Spec(Program(terminal=terminal), timeout=5.0, is_brief=True)


async def test_a_program_keeps_a_thousand_bytes_of_its_command(bench: Bench) -> None:
    argv = ["cat", *(f"--{number}" for number in range(10_000))]
    spec = Spec(Program(argv=argv, cwd=".", stdin=True), input=b"x" * 1000)
    process = await bench.table.start(spec, id=bench.new_id(), owner=None)
    await process.supervise()
    assert process.spec.program.argv is None
    assert process.spec.input is None
    assert sum(len(word) + 1 for word in process.told.command["argv"]) <= 1025
    assert process.told.command["cut"] > 50_000
    assert process.told.cwd == "."
