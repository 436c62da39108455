"""What a program's own words become before anything is started."""

from __future__ import annotations

import pytest

from sidecar.errors import Invalid
from sidecar.hands.interface import Base, Program, Terminal
from sidecar.hands.local.command import Command, command_of

KEY = bytes(range(16))
MARK = b"000102030405060708090a0b0c0d0e0f"
BASES = {
    Base.DEFAULT: {b"PATH": b"/bin", b"A": b"1", b"LINES": b"50", b"TERM": b"dumb"},
    Base.CLEAN: {b"HOME": b"/root"},
    Base.EMPTY: {},
}


def environment(program: Program) -> dict[bytes, bytes]:
    return command_of(program, BASES, KEY).environment


def test_the_base_is_the_one_that_was_chosen() -> None:
    assert environment(Program(argv=["x"], base=Base.CLEAN, env={"B": "2"})) == {
        b"HOME": b"/root",
        b"B": b"2",
        b"SIDECAR_EXEC_ID": MARK,
    }
    assert environment(Program(argv=["x"], base=Base.EMPTY)) == {b"SIDECAR_EXEC_ID": MARK}
    assert environment(Program(argv=["x"]))[b"A"] == b"1"
    assert b"SIDECAR_EXEC_ID" not in BASES[Base.DEFAULT], "the base is not written to"


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(Program(argv=["x"], env={"SIDECAR_EXEC_ID": "another"}), id="set"),
        pytest.param(Program(argv=["x"], unset=["SIDECAR_EXEC_ID"]), id="unset"),
    ],
)
def test_the_mark_cannot_be_asked_away(program: Program) -> None:
    assert environment(program)[b"SIDECAR_EXEC_ID"] == MARK


def test_a_terminal_says_what_it_is_and_nobody_else_how_large() -> None:
    found = environment(Program(argv=["x"], terminal=Terminal(term="vt100")))
    assert found[b"TERM"] == b"vt100"
    assert b"LINES" not in found
    assert environment(Program(argv=["x"]))[b"LINES"] == b"50"
    chosen = Program(argv=["x"], terminal=Terminal(), env={"LINES": "9", "TERM": "dumb"})
    assert environment(chosen)[b"LINES"] == b"9"
    assert environment(chosen)[b"TERM"] == b"dumb"


def test_a_kind_of_terminal_holds_no_nul() -> None:
    with pytest.raises(Invalid):
        command_of(Program(argv=["x"], terminal=Terminal(term="vt\0")), BASES, KEY)


def test_a_shell_is_found_in_an_empty_environment() -> None:
    command = command_of(Program(shell="echo", base=Base.EMPTY), BASES, KEY)
    assert command.argv == (b"/bin/sh", b"-c", b"echo")


@pytest.mark.parametrize(
    "name, environment, expected",
    [
        (b"tool", {b"PATH": b"/a::b/"}, [b"/a/tool", b"tool", b"b/tool"]),
        (b"tool", {b"PATH": b""}, [b"tool"]),
        (b"./tool", {b"PATH": b"/a"}, [b"./tool"]),
        (b"/tool", {}, [b"/tool"]),
    ],
)
def test_where_a_program_is_sought(
    name: bytes, environment: dict[bytes, bytes], expected: list[bytes]
) -> None:
    assert list(Command((name,), environment).candidates()) == expected


def test_without_a_path_there_is_a_default() -> None:
    assert b"/usr/bin/tool" in list(Command((b"tool",), {}).candidates())
