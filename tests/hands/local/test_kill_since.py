"""Killing what a program started since some moment, and not the program itself: both forms."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import anyio
import pytest

from sidecar.hands.interface import Hands, Program
from sidecar.hands.local.proc import read_process

KEY = os.urandom(16)
TICK = 1 / os.sysconf("SC_CLK_TCK")

# Starts one sleep, and one more with each line of input; tells their pids.
CODE = "while sleep 100 & do echo $!; read line || exit; done"

Begin = Callable[[str], Awaitable[tuple[int, int, int]]]


@pytest.fixture
async def begin(any_hands: Hands) -> AsyncIterator[Begin]:
    """Runs a script that starts something early, and something late; both pids, and when late
    began."""
    opened: list[int] = []

    async def begin(script: str) -> tuple[int, int, int]:
        running = await any_hands.spawn(Program(argv=["sh", "-c", script], stdin=True), key=KEY)
        assert running.stdin is not None and running.stderr is not None
        opened.extend((running.stdin, running.stdout, running.stderr))
        early = await line_of(running.stdout)
        await anyio.sleep(2 * TICK)
        since = int(time.clock_gettime(time.CLOCK_BOOTTIME) / TICK)
        os.write(running.stdin, b"\n")
        return early, await line_of(running.stdout), since

    yield begin
    await any_hands.kill(KEY, grace=0)
    await any_hands.wait(KEY)
    for descriptor in opened:
        os.close(descriptor)


async def line_of(fd: int) -> int:
    with anyio.fail_after(5):
        await anyio.wait_readable(fd)
        return int(os.read(fd, 100))


def lives(pid: int) -> bool:
    process = read_process(pid)
    return process is not None and process.is_alive


async def test_what_was_started_earlier_lives_on(begin: Begin, any_hands: Hands) -> None:
    early, late, since = await begin(CODE)
    await any_hands.kill(KEY, grace=5, since=since)
    assert (lives(early), lives(late)) == (True, False)
    [known] = await any_hands.known()
    assert not known.has_ended


@pytest.mark.parametrize("ignored", ["TERM", "TERM INT HUP"])
async def test_who_ignores_term_is_killed_after_the_grace(
    ignored: str, begin: Begin, any_hands: Hands
) -> None:
    deaf = f"trap '' {ignored}; echo \\$\\$; read x"
    script = f'sleep 100 & echo $!; read line; sh -c "{deaf}"; read x'
    early, late, since = await begin(script)
    await any_hands.kill(KEY, grace=0.1, since=since)
    assert (lives(early), lives(late)) == (True, False)


async def test_without_grace_it_is_killed_at_once(begin: Begin, any_hands: Hands) -> None:
    early, late, since = await begin(CODE)
    await any_hands.kill(KEY, grace=0, since=since)
    assert (lives(early), lives(late)) == (True, False)


async def test_nothing_started_since_is_no_error(begin: Begin, any_hands: Hands) -> None:
    early, late, since = await begin(CODE)
    with anyio.fail_after(5):
        await any_hands.kill(KEY, grace=60, since=since + 10_000)
    assert lives(early) and lives(late)
    await any_hands.signal(KEY, signal.SIGCONT)
