"""`sidecar exec -t` and `attach` at a real terminal, read by an emulator."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from console import Console

PROGRAM = [sys.executable, "-m", "sidecar"]
REPL = ["--env", "PYTHON_BASIC_REPL=1", "--", sys.executable, "-q"]
LEAVE = "\x10\x11"  # Ctrl-P Ctrl-Q

At = Callable[..., Console]


@pytest.fixture
def at(sidecar) -> Iterator[At]:
    """The verbs, at a terminal."""
    with ExitStack() as exits:
        yield lambda *arguments, **options: exits.enter_context(
            Console([*PROGRAM, *arguments], sidecar.environ, **options)
        )


def way_back(screen: Console) -> list[str]:
    """The command line that we were told."""
    screen.shows("come back with: sidecar attach ")
    [line] = re.findall(r"come back with: sidecar (attach .+)", screen.text)
    return line.split()


def test_a_repl_is_left_and_come_back_to(at) -> None:
    first = at("exec", "-t", *REPL)
    first.shows(">>>")
    assert first.is_raw
    first.type("x = 40\r")
    first.type(LEAVE)
    assert first.ends() == 125  # not 0: how it ends is not known yet
    assert first.is_as_before

    second = at(*way_back(first))
    second.until(lambda: second.is_raw, "a raw terminal")
    second.type("x + 2\r")
    second.shows("42")
    second.type("exit(3)\r")
    assert second.ends() == 3
    assert second.is_as_before


def test_a_program_that_ends_at_once_is_seen_whole(at) -> None:
    screen = at("exec", "-t", "--", "sh", "-c", "echo all of it; exit 4")
    assert screen.ends() == 4
    assert "all of it" in screen.text


def test_size_and_ctrl_c_are_for_the_program(at) -> None:
    script = "trap 'stty size' WINCH; trap 'echo caught; exit 5' INT; stty size; echo $TERM"
    screen = at(
        "exec", "-t", "--shell", f"{script}; while :; do sleep 0.05; done", rows=33, cols=99
    )
    screen.shows("33 99\nxterm-256color")
    screen.resize(40, 120)
    screen.shows("40 120")
    screen.type("\x03")
    screen.shows("caught")
    assert screen.ends() == 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["TERM", "HUP"])
def test_a_signal_to_us_leaves_the_program_and_the_terminal_as_they_were(
    at, sidecar, number
) -> None:
    screen = at("exec", "-t", "--", "sh", "-c", "printf '\\033[?25l\\033[?1049h'; cat")
    screen.until(lambda: screen.is_raw, "a raw terminal")
    screen.type("here\r")
    screen.shows("here")
    screen.process.send_signal(number)
    assert screen.ends() == 128 + number
    assert screen.is_as_before
    assert b"\x1b[?1047l\x1b[?25h" in screen.raw_output, "what the program switched on is off"
    assert sidecar("kill", way_back(screen)[-1]).returncode == 0


def test_without_a_terminal_it_says_what_else_there_is(sidecar) -> None:
    done = sidecar("exec", "-t", "true", input=b"")
    assert done.returncode == 125
    assert b"-t needs a terminal as standard input. Without -t, " in done.stderr
    assert b"no key" in sidecar("attach", "--detach-keys", "ctrl-1", "x").stderr


def test_what_cannot_be_started_leaves_the_terminal_alone(at) -> None:
    screen = at("exec", "-t", "no-such-program")
    assert screen.ends() == 127
    assert screen.text.startswith("sidecar: not_found: ")
    assert screen.is_as_before


def test_a_timeout_of_a_terminal_is_124_too(at) -> None:
    screen = at("exec", "-t", "--idle-timeout", "0.2", "--", "sh", "-c", "echo partial; sleep 30")
    assert screen.ends() == 124
    assert "partial" in screen.text
    assert "sidecar: timeout: the program neither read nor wrote for 0.2 s" in screen.text


@pytest.mark.slow
def test_vim_edits_and_saves(at, dev) -> None:
    screen = at("exec", "-t", "--", "vim", "-u", "NONE", "-N", "notes.txt")
    screen.shows("~\n~")
    screen.type("ihello from vim")
    screen.shows("hello from vim")
    screen.type("\x1b:wq\r")
    assert screen.ends() == 0
    assert (dev.folder / "notes.txt").read_text() == "hello from vim\n"


@pytest.mark.slow
def test_a_flood_is_stopped_by_ctrl_c(at) -> None:
    screen = at("exec", "-t", "yes")
    screen.shows("y\ny\ny")
    screen.type("\x03")
    assert screen.ends() == 130


@pytest.mark.slow
def test_a_terminal_that_takes_no_more_holds_nobody_up(at) -> None:
    screen = at("exec", "-t", "yes")
    screen.shows("y\ny\ny")
    memory = Path(f"/proc/{screen.process.pid}/statm")
    before = int(memory.read_text().split()[1])
    time.sleep(1)  # nobody reads, and what is printed has to stay where it is
    assert int(memory.read_text().split()[1]) - before < 1024  # pages: 4 MiB
    screen.process.send_signal(signal.SIGTERM)
    assert screen.process.wait(10) == 143
    assert screen.is_as_before


@pytest.mark.slow
def test_one_that_has_ended_gives_its_status_and_takes_no_keys(at, sidecar) -> None:
    id = sidecar("exec", "-td", "--", "sh", "-c", "echo seen; exit 6").stdout.decode().strip()
    assert sidecar("logs", "--follow", id).stdout == b"seen\r\n"
    screen = at("attach", "--from", "0", id)
    assert screen.ends() == 6
    assert screen.text == "seen"
    assert screen.is_as_before


@pytest.mark.slow
def test_full_screen_programs_draw_themselves_anew(at, dev) -> None:
    (dev.folder / "lines").write_text("".join(f"line {n}\n" for n in range(1, 201)))
    first = at("exec", "-t", "--", "less", "lines")
    first.shows("line 23")
    first.type("G")
    first.shows("line 200")
    first.type(LEAVE)
    assert first.ends() == 125

    second = at(*way_back(first), rows=30, cols=60)  # it has printed nothing since
    second.shows("line 199\nline 200")
    second.type("q")
    assert second.ends() == 0


@pytest.mark.slow
def test_stopped_and_continued_it_has_the_terminal_only_while_it_runs(at) -> None:
    screen = at("exec", "-t", "--shell", "trap 'stty size' WINCH; while :; do sleep 0.05; done")
    screen.until(lambda: screen.is_raw, "a raw terminal")
    screen.process.send_signal(signal.SIGTSTP)
    screen.until(lambda: screen.is_as_before, "the terminal as it was")
    stat = Path(f"/proc/{screen.process.pid}/stat")
    screen.until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", "a stop")
    screen.process.send_signal(signal.SIGCONT)
    screen.shows("24 80")  # it was told to draw itself anew
    assert screen.is_raw
    screen.type(LEAVE)
    assert screen.ends() == 125


IMPATIENT = (
    "import sys; from sidecar.cli import target; target.LOST = 0.5\n"
    "from sidecar.__main__ import main; main()"
)


@pytest.mark.slow
def test_a_dead_hub_gives_the_terminal_back(dev_on) -> None:
    dev = dev_on("doomed")
    program = [sys.executable, "-c", IMPATIENT, "exec", "-t", "cat"]
    with Console(program, dev.bench.environ) as screen:
        screen.until(lambda: screen.is_raw, "a raw terminal")
        os.kill(dev.process.pid, signal.SIGKILL)
        assert screen.ends() == 125
        assert screen.is_as_before
        assert "left running" in screen.text


@pytest.mark.slow
def test_much_that_is_pasted_arrives_whole(at) -> None:
    data = bytes(range(32, 127)) * 3000
    script = f"stty raw -echo; echo ready; head -c {len(data)} | md5sum"
    screen = at("exec", "-t", "--shell", script)
    screen.shows("ready")
    screen.paste(data)
    assert screen.ends() == 0
    assert hashlib.md5(data).hexdigest() in screen.text
