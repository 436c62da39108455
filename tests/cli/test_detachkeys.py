"""The keys that leave a terminal: how they are written, and what passes meanwhile."""

from __future__ import annotations

import pytest

from sidecar.cli.detachkeys import DEFAULT, KeyWatch, parse_keys


@pytest.mark.parametrize(
    "text, keys",
    [
        (DEFAULT, b"\x10\x11"),
        ("", b""),
        ("a", b"a"),
        ("ctrl-@,ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_", b"\x00\x1b\x1c\x1d\x1e\x1f"),
        ("CTRL-A,~,.", b"\x01~."),
        ("-", b"-"),
    ],
)
def test_keys_are_written_as_docker_writes_them(text, keys) -> None:
    assert parse_keys(text) == keys


@pytest.mark.parametrize(
    "text", ["ctrl-", "ctrl-1", "alt-a", "ab", "a,", "\u00e9", "ctrl-p ctrl-q"]
)
def test_what_is_no_key_is_named(text) -> None:
    with pytest.raises(ValueError, match="is no key: a character, or ctrl-"):
        parse_keys(text)


def test_everything_passes_but_the_sequence() -> None:
    watch = KeyWatch(b"\x10\x11")
    assert watch.receive(b"abc\x11") == b"abc\x11"
    assert watch.receive(b"d\x10\x11e") == b"d"
    assert watch.has_left


def test_its_beginning_is_held_back_until_the_next_key() -> None:
    watch = KeyWatch(b"\x10\x11")
    assert watch.receive(b"a\x10") == b"a"
    assert watch.is_holding
    assert watch.receive(b"x") == b"\x10x"
    assert not watch.is_holding
    assert watch.receive(b"\x10") == b""
    assert watch.receive(b"\x11") == b""
    assert watch.has_left


def test_what_is_held_back_passes_when_nothing_follows() -> None:
    watch = KeyWatch(b"\x10\x11")
    watch.receive(b"\x10")
    assert watch.release() == b"\x10"
    assert watch.receive(b"\x11") == b"\x11"
    assert not watch.has_left


def test_a_sequence_that_begins_like_itself_is_found() -> None:
    watch = KeyWatch(b"aab")
    assert watch.receive(b"aaab") == b"a"
    assert watch.has_left


def test_without_a_sequence_nothing_is_held() -> None:
    watch = KeyWatch(b"")
    assert watch.receive(b"\x10\x11") == b"\x10\x11"
    assert not watch.has_left
