"""Programs on a terminal of their own, seen through an emulator."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from screen import Tty

from sidecar.errors import CallError, Code, Started
from sidecar.hands.interface import Base, Hands, Program, Running, Target, Terminal
from sidecar.hands.local import terminal as module
from sidecar.hands.local.proc import read_process

KEY = b"call"
SIZE = Terminal(rows=24, cols=80)

Start = Callable[..., Awaitable[tuple[Running, Tty]]]


@pytest.fixture
async def start(any_hands: Hands) -> AsyncIterator[Start]:
    """Starts a program on a terminal; what it left open is closed when the test has ended."""
    started: list[Running] = []

    async def start(*argv: str, **program: Any) -> tuple[Running, Tty]:
        options = {"terminal": SIZE, "control": False} | program
        running = await any_hands.spawn(Program(argv=argv, **options), key=KEY)
        started.append(running)
        assert running.stdin is not None
        size = options["terminal"]
        return running, Tty(running.stdout, running.stdin, rows=size.rows, cols=size.cols)

    yield start
    await any_hands.aclose()
    for running in started:
        for descriptor in (running.stdin, running.stdout, running.control):
            if descriptor is not None:
                os.close(descriptor)


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(5):
        while not condition():  # noqa: ASYNC110 - another process sets no event
            await anyio.sleep(0.005)


def foreground(running: Running) -> int:
    """The process group that reads its terminal: tpgid, the eighth field (proc(5))."""
    stat = Path(f"/proc/{running.pid}/stat").read_bytes()
    return int(stat.rpartition(b")")[2].split()[5])


async def test_a_program_leads_the_session_of_its_terminal(start: Start, any_hands: Hands) -> None:
    running, screen = await start("sh", "-c", "tty; ps -o pid=,sid=,pgid=,tpgid= -p $$")
    tty, ids, *_ = (await screen.ends()).splitlines()
    assert tty.startswith("/dev/pts/")
    assert ids.split() == [str(running.pid)] * 4
    assert (await any_hands.wait(KEY)).status == 0
    [known] = await any_hands.known()
    assert known.has_terminal


async def test_the_terminal_is_all_that_a_program_has_open(start: Start) -> None:
    code = (
        "import os\n"
        "names = [os.ttyname(n) for n in range(3)]\n"
        "print(len(set(names)), sorted(os.listdir('/proc/self/fd'))[:-1], os.get_blocking(0))\n"
        "print(os.open('/dev/tty', os.O_RDWR) > 0)"
    )
    _, screen = await start(sys.executable, "-c", code)
    assert await screen.ends() == "1 ['0', '1', '2'] True\nTrue"


async def test_our_ends_do_not_block_and_are_not_inherited(start: Start) -> None:
    running, _ = await start("cat", control=True)
    assert running.stderr is None
    for descriptor in (running.stdin, running.stdout, running.control):
        assert descriptor is not None
        assert not os.get_blocking(descriptor)
        assert not os.get_inheritable(descriptor)


async def test_a_plain_terminal_passes_everything_and_echoes_nothing(start: Start) -> None:
    plain = Terminal(24, 80, plain=True)
    running, _ = await start("sh", "-c", "printf 'a\\n'; read x; echo $x", terminal=plain)
    assert running.stdin is not None
    printed = b""
    os.write(running.stdin, b"\x13b\n")  # Ctrl-S would stop it
    with anyio.fail_after(5):
        while len(printed) < 5:
            await anyio.wait_readable(running.stdout)
            printed += os.read(running.stdout, 100)
    assert printed == b"a\n\x13b\n"


async def test_a_terminal_has_its_size_from_the_start_and_can_be_resized(
    start: Start, any_hands: Hands
) -> None:
    _, screen = await start(
        *("sh", "-c", "trap 'stty size' WINCH; stty size; while read line; do :; done"),
        terminal=Terminal(rows=7, cols=33),
    )
    await screen.shows("7 33")
    await any_hands.resize(KEY, rows=9, cols=44)
    await screen.shows("9 44")


async def test_a_screen_is_drawn_anew_after_a_resize(start: Start, any_hands: Hands) -> None:
    _, screen = await start("vim", "-u", "NONE", "-c", "set laststatus=2")
    await screen.shows(lambda lines: "[No Name]" in lines[22])
    await any_hands.resize(KEY, rows=10, cols=40)
    screen.resize(rows=10, cols=40)
    await screen.shows(lambda lines: "[No Name]" in lines[8])


@pytest.mark.parametrize("rows, cols", [(0, 80), (24, 0), (-1, 80), (65536, 80), (24, 65536)])
async def test_a_size_that_no_terminal_has_is_invalid(
    start: Start, any_hands: Hands, rows: int, cols: int
) -> None:
    with pytest.raises(CallError) as caught:
        await start("true", terminal=Terminal(rows=rows, cols=cols))
    assert (caught.value.code, caught.value.started) == (Code.INVALID, Started.NO)
    assert await any_hands.known() == []

    await start("cat")
    with pytest.raises(CallError) as caught:
        await any_hands.resize(KEY, rows=rows, cols=cols)
    assert caught.value.code == Code.INVALID


async def test_pipes_have_no_size_and_no_foreground(any_hands: Hands) -> None:
    running = await any_hands.spawn(Program(argv=["cat"], stdin=True), key=KEY)
    for call in (
        any_hands.resize(KEY, rows=24, cols=80),
        any_hands.signal(KEY, signal.SIGINT, Target.FOREGROUND),
    ):
        with pytest.raises(CallError) as caught:
            await call
        assert caught.value.code == Code.INVALID
        assert "no terminal" in caught.value.message
    [known] = await any_hands.known()
    assert not known.has_terminal
    await any_hands.kill(KEY, grace=1)
    for descriptor in (running.stdin, running.stdout, running.stderr):
        assert descriptor is not None
        os.close(descriptor)


async def test_after_the_end_a_resize_does_nothing(start: Start, any_hands: Hands) -> None:
    await start("true")
    await any_hands.wait(KEY)
    await any_hands.resize(KEY, rows=10, cols=10)
    await any_hands.signal(KEY, signal.SIGINT, Target.FOREGROUND)


@pytest.mark.parametrize(
    "program, expected",
    [
        pytest.param({}, "xterm-256color", id="as-the-terminal-says"),
        pytest.param({"terminal": Terminal(term="vt100")}, "vt100", id="as-asked-for"),
        pytest.param({"env": {"TERM": "dumb"}}, "dumb", id="as-the-environment-says"),
        pytest.param({"base": Base.EMPTY}, "xterm-256color", id="also-in-an-empty-one"),
    ],
)
async def test_a_program_knows_its_kind_of_terminal(
    start: Start, program: dict[str, Any], expected: str
) -> None:
    _, screen = await start("/bin/sh", "-c", "echo $TERM", **program)
    assert await screen.ends() == expected


async def test_what_is_erased_is_a_character(start: Start) -> None:
    _, screen = await start("cat")
    screen.type("w\u00f6\x7fx\r")
    await screen.shows("wx\nwx")


async def test_ctrl_c_ends_the_program(start: Start, any_hands: Hands) -> None:
    _, screen = await start("sleep", "60")
    screen.type("\x03")
    assert (await any_hands.wait(KEY)).signal == signal.SIGINT


async def test_ctrl_d_ends_the_input(start: Start, any_hands: Hands) -> None:
    _, screen = await start("cat")
    screen.type("\x04")
    assert (await any_hands.wait(KEY)).status == 0


def is_asleep(pid: int) -> bool:
    """Whether it is sleep(1) by now. Before that it is a copy of the shell, which ignores keys."""
    process = read_process(pid)
    return process is not None and process.name == b"sleep"


async def test_job_control_works_in_a_shell(start: Start, any_hands: Hands) -> None:
    running, screen = await start("bash", "--norc", "-i", env={"PS1": "> "})
    await screen.shows(">")
    screen.type("sleep 60\r")
    await until(lambda: is_asleep(foreground(running)))
    screen.type("\x1a")
    await screen.shows("Stopped")
    screen.type("fg\r")
    await until(lambda: foreground(running) != running.pid)
    await any_hands.signal(KEY, signal.SIGTERM, Target.FOREGROUND)
    await screen.shows("Terminated")
    screen.type("exit 5\r")
    assert (await any_hands.wait(KEY)).status == 5


async def test_a_signal_to_the_foreground_is_a_key(start: Start, any_hands: Hands) -> None:
    running, screen = await start("bash", "--norc", "-i", env={"PS1": "> "})
    await screen.shows(">")
    screen.type("sleep 60 | cat\r")
    await until(lambda: is_asleep(foreground(running)))
    await any_hands.signal(KEY, signal.SIGINT, Target.FOREGROUND)
    await until(lambda: foreground(running) == running.pid)
    screen.type("exit 6\r")
    assert (await any_hands.wait(KEY)).status == 6


async def test_the_control_socket_is_descriptor_three(start: Start, any_hands: Hands) -> None:
    code = "read line <&3; echo got $line; echo answer >&3; exec 3<&-; cat"
    running, screen = await start("bash", "-c", code, control=True)
    assert running.control is not None
    os.write(running.control, b"question\n")
    await screen.shows("got question")
    await anyio.wait_readable(running.control)
    assert os.read(running.control, 100) == b"answer\n"
    await anyio.wait_readable(running.control)
    assert os.read(running.control, 100) == b"", "nobody else has it open"


async def test_the_python_prompt(start: Start, any_hands: Hands) -> None:
    _, screen = await start(sys.executable, "-q", env={"PYTHON_BASIC_REPL": "1"})
    await screen.shows(">>>")
    screen.type("6 * 7\r")
    await screen.shows("42\n>>>")
    screen.type("while True: pass\r\r")
    await screen.shows("...")
    screen.type("\x03")
    await screen.shows("KeyboardInterrupt\n>>>")
    screen.type("exit(3)\r")
    assert (await any_hands.wait(KEY)).status == 3


async def test_vim_edits_a_file(start: Start, any_hands: Hands, root: Path) -> None:
    (root / "poem").write_text("roses are red\n")
    _, screen = await start("vim", "-u", "NONE", "poem")
    await screen.shows("roses are red\n~\n")
    screen.type("oviolets are bl\u00fc\x1b")
    await screen.shows("roses are red\nviolets are bl\u00fc\n~")
    screen.type(":wq\r")
    assert (await any_hands.wait(KEY)).status == 0
    assert (root / "poem").read_text() == "roses are red\nviolets are bl\u00fc\n"


async def test_less_turns_pages(start: Start, any_hands: Hands, root: Path) -> None:
    (root / "numbers").write_text("".join(f"line {number}\n" for number in range(1, 101)))
    _, screen = await start("less", "numbers")
    await screen.shows("line 23\nnumbers")
    screen.type(" ")
    await screen.shows(lambda lines: lines[0] == "line 24")
    screen.type("G")
    await screen.shows("line 100\n(END)")
    screen.type("?line 50\r")
    await screen.shows(lambda lines: lines[0] == "line 50")
    screen.type("q")
    assert (await any_hands.wait(KEY)).status == 0


async def test_top_draws_its_table_again_and_again(start: Start, any_hands: Hands) -> None:
    _, screen = await start("sh", "-c", "exec top -d 0.1 -p $$")
    await screen.shows(lambda lines: lines[6].endswith("COMMAND") and lines[7].endswith("top"))
    screen.type("c")
    await screen.shows("top -d 0")
    screen.type("q")
    await screen.ends()
    assert (await any_hands.wait(KEY)).status == 0


@pytest.mark.parametrize(
    "number, code, words",
    [
        (errno.ENOENT, Code.UNSUPPORTED, "no terminals here"),
        (errno.EACCES, Code.UNSUPPORTED, "no terminals here"),
        (errno.ENOSPC, Code.LIMIT, "kernel.pty.max"),
        (errno.EMFILE, Code.LIMIT, "Too many open files"),
    ],
)
async def test_without_a_terminal_nothing_starts(
    start: Start,
    any_hands: Hands,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    code: Code,
    words: str,
) -> None:
    def refuse(path: str, flags: int, **options: object) -> int:
        if path == "/dev/ptmx":
            raise OSError(number, os.strerror(number))
        return open_file(path, flags, **options)  # type: ignore[arg-type]

    open_file = os.open
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(CallError) as caught:
        await start("true")
    assert (caught.value.code, caught.value.started) == (code, Started.NO)
    assert words in caught.value.message
    assert await any_hands.known() == []


async def test_a_terminal_that_programs_cannot_reach_is_unsupported(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PTS", b"/nowhere/%d")
    with pytest.raises(CallError) as caught:
        await start("true")
    assert caught.value.code == Code.UNSUPPORTED
    assert "/nowhere/" in caught.value.message
