"""Our own terminal: raw in between, and nothing else afterwards."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from collections.abc import Iterator

import pytest

from sidecar.cli.tty import RawTerminal, size_of, term


@pytest.fixture
def slave(monkeypatch) -> Iterator[int]:
    """A terminal; that it is ours cannot be had without a session of its own."""
    master, slave = os.openpty()
    monkeypatch.setattr(os, "tcgetpgrp", lambda fd: os.getpgrp())
    yield slave
    os.close(slave)
    os.close(master)


def test_every_mode_is_put_back_also_after_an_error(slave) -> None:
    before = termios.tcgetattr(slave)
    with pytest.raises(KeyError), RawTerminal(slave):
        modes = termios.tcgetattr(slave)
        assert not modes[3] & (termios.ICANON | termios.ECHO | termios.ISIG)
        assert not modes[1] & termios.OPOST
        raise KeyError
    assert termios.tcgetattr(slave) == before


def test_entering_and_leaving_may_be_repeated(slave) -> None:
    before = termios.tcgetattr(slave)
    terminal = RawTerminal(slave)
    terminal.leave()
    terminal.enter()
    terminal.enter()
    terminal.leave()
    terminal.leave()
    assert termios.tcgetattr(slave) == before


def test_a_terminal_that_a_shell_took_back_is_left_alone(slave, monkeypatch) -> None:
    terminal = RawTerminal(slave)
    terminal.enter()
    monkeypatch.setattr(os, "tcgetpgrp", lambda fd: 1)
    terminal.leave()
    assert not termios.tcgetattr(slave)[3] & termios.ICANON


def test_after_a_stop_it_is_raw_again(slave) -> None:
    cooked = termios.tcgetattr(slave)
    terminal = RawTerminal(slave)
    terminal.resume()
    assert termios.tcgetattr(slave) == cooked  # it was not raw
    with terminal:
        termios.tcsetattr(slave, termios.TCSANOW, cooked)  # as a shell does
        terminal.resume()
        assert not termios.tcgetattr(slave)[3] & termios.ICANON
    assert termios.tcgetattr(slave) == cooked


def test_what_is_no_terminal_is_an_os_error(tmp_path) -> None:
    with (tmp_path / "file").open("w") as file, pytest.raises(OSError):
        RawTerminal(file.fileno()).enter()


def test_the_size_is_the_terminals_or_the_usual_one(slave) -> None:
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 33, 99, 0, 0))
    assert size_of(slave) == (33, 99)
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 0, 0, 0, 0))
    assert size_of(slave) == (24, 80)
    with open(os.devnull) as null:
        assert size_of(null.fileno()) == (24, 80)


@pytest.mark.parametrize(
    "value, name", [("vt100", "vt100"), ("", "xterm-256color"), ("\udcff", "xterm-256color")]
)
def test_what_term_says(monkeypatch, value, name) -> None:
    monkeypatch.setenv("TERM", value)
    assert term() == name
