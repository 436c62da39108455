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
    Selection,
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
    page = Listing([Entry(b"b/\xff", STAT), Entry(b"c", STAT)], next=b"c/d")
    row = loads(dumps(messages.listing_row(page, 1000)))
    assert messages.listing_from(row, b"b", 2) == page
    chosen = Selection(["*.o", b"\xff"], "git", ["**/a"], 3)
    assert messages.selection_from(loads(dumps(messages.selection_map(chosen)))) == chosen
    known = [Known(b"k", 1, 2, True, False, b"sh\0-c")]
    assert messages.known_from([messages.known_row(one) for one in known]) == known
    survivors = {b"k": [Survivor(1, 2, b"\xff")], b"l": []}
    assert messages.survivors_from(messages.survivors_rows(survivors, 10)) == survivors


def test_what_is_too_much_for_a_frame_is_cut() -> None:
    page = Listing([Entry(b"%d" % n + b"n" * 199, STAT) for n in range(10)])
    following, rows = messages.listing_row(page, 1000)
    assert (following, len(rows)) == (b"2" + b"n" * 199, 3)
    assert messages.listing_row(page, 1)[0] == b"0" + b"n" * 199, "and one entry at least"
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


@pytest.mark.parametrize(
    "name", [b"", b".", b"a/..", b"a//b", b"/a", b"a/", b"a\0", b"n" * 1024, "text"]
)
def test_an_entry_has_a_name_that_leads_nowhere(name: Any) -> None:
    with pytest.raises(ProtocolError):
        messages.listing_from([None, [[name, ROW, None]]], None, 10)


def test_a_page_is_no_longer_than_was_asked() -> None:
    with pytest.raises(ProtocolError):
        messages.listing_from([None, [[b"a", ROW, None], [b"b", ROW, None]]], None, 1)


@pytest.mark.parametrize(
    "following, paths",
    [
        pytest.param(None, [b"c", b"b"], id="another order"),
        pytest.param(None, [b"a", b"a"], id="twice the same"),
        pytest.param(None, [b"a.b", b"a/b"], id="the order of bytes, not of names"),
        pytest.param(None, [b"A"], id="what was told before"),
        pytest.param(b"A", [], id="a next page that is this one"),
        pytest.param(b"B", [b"C"], id="a next page that begins before the end"),
        pytest.param("C", [b"C"], id="a next that is no path"),
        pytest.param(b"../C", [b"C"], id="a next that leads away"),
    ],
)
def test_a_page_goes_on_from_the_one_before(following: Any, paths: list[bytes]) -> None:
    with pytest.raises(ProtocolError):
        messages.listing_from([following, [[path, ROW, None] for path in paths]], b"A", 10)


def test_an_entry_without_a_stat_has_an_error() -> None:
    with pytest.raises(ProtocolError):
        messages.listing_from([None, [[b"a", None, None]]], None, 10)
    error = {"code": "permission_denied", "message": "a: Permission denied"}
    page = messages.listing_from([None, [[b"a", None, error]]], None, 10)
    assert page.entries[0].error is not None
    assert page.entries[0].error.code == "permission_denied"
