"""What the client makes of an answer about a program."""

from __future__ import annotations

from sidecar.client.exec import completed_of


def test_what_is_missing_of_its_output_is_told_by_stream() -> None:
    gap = {"at": 70, "bytes": None, "why": "killed"}
    answer = {
        "status": 3,
        "signal": None,
        "duration": 1.5,
        "stdout": {"size": 100, "dropped": 5, "gaps": [gap, {**gap, "at": 90}]},
        "stderr": {"size": 1, "dropped": 0},
    }
    ended = completed_of(answer, b"out", b"e")
    assert (ended.status, ended.stdout, ended.stderr) == (3, b"out", b"e")
    assert (ended.dropped, ended.gaps) == ({1: 5}, {1: [70, 90]})


def test_a_terminal_has_one_output() -> None:
    ended = completed_of({"status": None, "signal": 9, "duration": 0.5}, b"", b"")
    assert (ended.dropped, ended.gaps, ended.returncode) == ({}, {}, 137)
