"""Values and errors in words and in JSON, and keys in files."""

from __future__ import annotations

import stat
import sys

import pytest

from sidecar.cli.describe import describe, describe_event, describe_gap
from sidecar.cli.keyfile import HubKey, read_key, write_key
from sidecar.cli.output import explain, jsonable, show, wire_path
from sidecar.client import CallError, Code, Cursor, Event, Gap
from sidecar.errors import SettingsError, TokenExpired
from sidecar.protocol.journal import GapReason


@pytest.mark.parametrize(
    "value, text",
    [
        (None, ""),
        ({"pid": 7, "signal": None}, "pid=7"),
        ({"path": "a b", "sha256": bytes(32)}, 'path="a b" sha256=0000000000000000'),
        ({"seconds": 0.12345678, "inner": {"x": b"\xff"}}, None),
        ("one", "one"),
    ],
)
def test_values_in_words(value, text) -> None:
    expected = 'seconds=0.123457 inner={"x": {"base64": "/w=="}}' if text is None else text
    assert describe(value) == expected


def test_long_events_are_cut_and_gaps_say_why() -> None:
    event = Event(Cursor(None, 1), 0.0, "x", None, {"text": "y" * 500})
    assert describe_event(event) == "text=" + "y" * 114 + "…"
    assert describe_gap(Gap(Cursor(), 1, 5, "later", 10)) == "events 1 to 5 are gone: later"
    told = [describe_gap(Gap(Cursor(), 1, 5, why, 10)) for why in GapReason]
    assert len(set(told)) == len(GapReason), "each reason has words of its own"
    assert not any(text.endswith(f": {why}") for text, why in zip(told, GapReason, strict=True))
    assert describe_gap(Gap(Cursor(), 1, None, "new_series", None)).startswith("a new series")


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_name_is_one_line_on_a_terminal_and_as_it_is_elsewhere(
    is_terminal, capsys, monkeypatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    show("a\nb\x1b[2J\u202e")
    assert capsys.readouterr().out == ("a�b�[2J�\n" if is_terminal else "a\nb\x1b[2J\u202e\n")


def test_bytes_in_json_are_base64_wherever_they_are() -> None:
    assert jsonable({1: [b"\xff", ("a", None)]}) == {"1": [{"base64": "/w=="}, ["a", None]]}


def test_a_path_travels_as_text_or_as_its_bytes() -> None:
    assert wire_path("ä") == "ä"
    assert wire_path("\udcff") == b"\xff"


@pytest.mark.parametrize(
    "error, lines",
    [
        (TokenExpired("1 s ago"), ["sidecar: expired: 1 s ago", "  hint: the token has lapsed"]),
        (CallError(Code.INVALID, "no"), ["sidecar: invalid: no"]),
        (SettingsError("set it"), ["sidecar: set it"]),
        (FileNotFoundError(2, "No such file", "x"), ["sidecar: x: No such file"]),
    ],
)
def test_errors_say_what_and_what_to_do(error, lines, capsys) -> None:
    explain(error)
    printed = capsys.readouterr().err.splitlines()
    assert len(printed) == len(lines)
    assert [line[: len(start)] for line, start in zip(printed, lines, strict=True)] == lines


def test_a_key_file_holds_a_connection_string_or_a_key(tmp_path) -> None:
    path = tmp_path / "key"
    write_key(path, "Endpoint=https://a.example/;AccessKey=abc=;Version=1.0;")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_key(path) == HubKey("abc=", "https://a.example")
    path.write_text("only-a-key==\n")
    assert read_key(path) == HubKey("only-a-key==", None)
    assert "only" not in repr(read_key(path))


@pytest.mark.parametrize("content", ["", "two words", "Endpoint=https://a;Secret=x"])
def test_what_is_no_key_is_refused_without_being_quoted(tmp_path, content) -> None:
    path = tmp_path / "key"
    path.write_text(content)
    with pytest.raises(SettingsError, match="neither a connection string nor a key$"):
        read_key(path)
