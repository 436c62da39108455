"""What crosses the socket comes out as it went in, and nothing else does."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from sidecar.errors import Invalid, ProtocolError
from sidecar.hands.apart import messages
from sidecar.hands.interface import (
    Base,
    Entry,
    Exit,
    FileStat,
    FileType,
    Known,
    Limits,
    Listing,
    Program,
    Survivor,
    Terminal,
)
from sidecar.protocol.envelope import dumps, loads

STAT = FileStat(FileType.SYMLINK, 3, 0o777, -1, 5, 6, 7, 8, 9, b"\xfftarget")


@pytest.mark.parametrize(
    "program",
    [
        Program(argv=["echo", b"\xff", "\u00e9"], unset=[]),
        Program(shell="ls", cwd=b"\xff", env={"A": "1", "B": ""}, unset=["C"], base=Base.EMPTY),
        Program(argv=["vi"], unset=[], terminal=Terminal(30, 100, "vt100"), control=True),
        Program(argv=["cc"], unset=[], stdin=True, limits=Limits(memory=1 << 30, cpu=5)),
    ],
)
def test_a_program_arrives_as_it_was(program: Program) -> None:
    found = messages.program_from(loads(dumps(messages.program_map(program))))
    assert found == replace(program, env=program.env or {})


def test_text_that_is_no_utf_8_arrives_as_bytes_or_as_the_same_text() -> None:
    program = Program(argv=["\udcff"], shell="\udcfe", env={"\udcfd": "\udcfc"}, unset=["\udcfb"])
    found = messages.program_from(loads(dumps(messages.program_map(program))))
    assert found.argv == [b"\xff"]
    assert (found.shell, found.env, found.unset) == ("\udcfe", {"\udcfd": "\udcfc"}, ["\udcfb"])
    with pytest.raises(Invalid):
        messages.program_map(Program(argv=["\ud800"]))


@pytest.mark.parametrize(
    "found",
    [
        {"terminal": {"depth": 3}},
        {"limits": {"joy": 1}},
        {"env": [["a"]]},
        {"env": [[1, "b"]]},
        {"unset": [5]},
        {"base": "royal"},
    ],
)
def test_a_program_with_something_else_in_it_is_refused(found: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        messages.program_from(found)


def test_results_arrive_as_they_were() -> None:
    exits = [Exit(0, None, 0.5, 0.25, 4096), Exit(None, 9)]
    assert [messages.exit_from(loads(dumps(messages.exit_row(e)))) for e in exits] == exits
    assert messages.stat_from(loads(dumps(messages.stat_row(STAT)))) == STAT
    page = Listing([Entry(b"\xff", STAT), Entry(b"b", STAT)], more=True)
    assert messages.listing_from(loads(dumps(messages.listing_row(page, 1000))), 2) == page
    known = [Known(b"k", 1, 2, True, False, b"sh\0-c")]
    assert messages.known_from([messages.known_row(one) for one in known]) == known
    survivors = {b"k": [Survivor(1, 2, b"\xff")], b"l": []}
    assert messages.survivors_from(messages.survivors_rows(survivors, 10)) == survivors


def test_what_is_too_much_for_a_frame_is_cut() -> None:
    page = Listing([Entry(b"n" * 200, STAT)] * 10, more=False)
    more, rows = messages.listing_row(page, 1000)
    assert (more, len(rows)) == (True, 3)
    assert messages.listing_row(page, 1)[0] is True, "and one entry at least"
    many = {b"%d" % n: [Survivor(n, 1, b"x")] * 3 for n in range(3)}
    rows = messages.survivors_rows(many, 4)
    assert [len(processes) for _, processes in rows] == [3, 1]


EXIT = [0, None, 0.0, 0.0, 0]
ROW = messages.stat_row(STAT)


def changed(row: list[Any], at: int, value: Any) -> list[Any]:
    return [*row[:at], value, *row[at + 1 :]]


@pytest.mark.parametrize(
    "read, value",
    [
        *[
            pytest.param(messages.exit_from, value, id=f"exit {value}")
            for value in (
                None,
                [],
                changed(EXIT, 0, None),
                changed(EXIT, 0, 256),
                changed(EXIT, 0, True),
                changed(EXIT, 1, 9),
                changed(EXIT, 2, math.nan),
                changed(EXIT, 2, -1.0),
                changed(EXIT, 3, 5),
                changed(EXIT, 4, -1),
                [None, 0, 0.0, 0.0, 0],
                [None, 65, 0.0, 0.0, 0],
            )
        ],
        *[
            pytest.param(messages.stat_from, value, id=f"stat {number}")
            for number, value in enumerate(
                (
                    "x",
                    ROW[:-1],
                    changed(ROW, 0, "door"),
                    changed(ROW, 0, []),
                    changed(ROW, 1, -1),
                    changed(ROW, 2, 0o10000),
                    changed(ROW, 3, 1 << 63),
                    changed(ROW, 3, 1.0),
                    changed(ROW, 9, "text"),
                )
            )
        ],
        *[
            pytest.param(messages.known_from, value, id=f"known {value}")
            for value in ({}, [5], [[b"k", 1, 2, 0, 0]], [[b"k" * 65, 1, 2, True, True]])
        ],
        *[
            pytest.param(messages.survivors_from, value, id=f"survivors {value}")
            for value in ({}, [5], [[b"k", 5]], [[b"k", [[1, 2, "name"]]]])
        ],
        *[
            pytest.param(messages.capabilities_from, value, id=f"capabilities {number}")
            for number, value in enumerate(
                (
                    [],
                    {5: True},
                    {"a": 5},
                    {"a": "x" * 4097},
                    {str(n): "x" * 4096 for n in range(5)},
                    {str(n): True for n in range(65)},
                )
            )
        ],
    ],
)
def test_what_no_hands_of_ours_would_say_is_refused(
    read: Callable[[Any], object], value: Any
) -> None:
    with pytest.raises(ProtocolError):
        read(value)


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"a\0", b"n" * 1024, "text"])
def test_an_entry_has_a_name_that_leads_nowhere(name: Any) -> None:
    with pytest.raises(ProtocolError):
        messages.listing_from([False, [[name, ROW]]], 10)


def test_a_page_is_no_longer_than_was_asked() -> None:
    with pytest.raises(ProtocolError):
        messages.listing_from([False, [[b"a", ROW], [b"b", ROW]]], 1)
