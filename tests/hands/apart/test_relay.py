"""A terminal as two pipes: nothing is lost, and who does not read holds the program."""

from __future__ import annotations

import fcntl
import os
import pty
import tty
from collections.abc import AsyncIterator
from dataclasses import dataclass

import anyio
import pytest

from sidecar.hands.apart import relay as module
from sidecar.hands.apart.relay import Relay


@dataclass
class Bench:
    relay: Relay
    program: int  # the side of the terminal that a program has

    def close_program(self) -> None:
        os.close(self.program)
        self.program = -1


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    master, program = pty.openpty()
    tty.setraw(program)
    for fd in (master, program):
        os.set_blocking(fd, False)
    relay = Relay()
    bench = Bench(relay, program)
    relay.begin(master, os.dup(master))
    yield bench
    relay.close()
    relay.close()
    for fd in (relay.output, relay.input, bench.program):
        if fd >= 0:
            os.close(fd)


async def read(fd: int, size: int) -> bytes:
    content = b""
    with anyio.fail_after(5):
        while len(content) < size:
            await anyio.wait_readable(fd)
            piece = os.read(fd, size - len(content))
            if not piece:
                break
            content += piece
    return content


async def test_both_ways(bench: Bench) -> None:
    os.write(bench.program, b"printed")
    assert await read(bench.relay.output, 7) == b"printed"
    os.write(bench.relay.input, b"typed")
    assert await read(bench.program, 5) == b"typed"


async def test_the_end_of_the_terminal_is_the_end_of_the_pipe(bench: Bench) -> None:
    os.write(bench.program, b"last words")
    bench.close_program()
    assert await read(bench.relay.output, 100) == b"last words"
    assert os.read(bench.relay.output, 100) == b""


async def test_what_was_printed_is_in_the_pipe_after_a_flush(bench: Bench) -> None:
    os.write(bench.program, b"x" * 4000)
    await anyio.sleep(0.01)  # the kernel hands it from one side to the other in a thread
    bench.relay.flush()
    assert os.read(bench.relay.output, 10_000) == b"x" * 4000


async def test_who_does_not_read_holds_the_program_and_loses_nothing(bench: Bench) -> None:
    fcntl.fcntl(bench.relay.output, fcntl.F_SETPIPE_SZ, 65_536)
    written = await fill(bench.program)
    assert 65_536 <= len(written) < 300_000
    assert await read(bench.relay.output, len(written)) == written


async def test_a_program_that_does_not_read_holds_the_writer(bench: Bench) -> None:
    written = await fill(bench.relay.input)
    assert 65_536 <= len(written) < 300_000
    assert await read(bench.program, 1000) == written[:1000]


async def test_others_get_their_turn_while_much_is_moved() -> None:
    source, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    reader, target = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    for fd in (writer, target):
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, 1 << 19)
    assert os.write(writer, b"x" * (1 << 19)) == 1 << 19
    flow = module._Flow(source, target)
    flow.move()
    assert len(os.read(reader, 1 << 20)) == module.TURN
    assert len(await read(reader, (1 << 19) - module.TURN)) == (1 << 19) - module.TURN
    flow.close()
    os.close(writer)
    os.close(reader)


async def fill(fd: int) -> bytes:
    """Write until nothing is taken any more; what was."""
    written = bytearray()
    idle = 0
    while idle < 20:
        try:
            size = os.write(fd, bytes([len(written) % 251]) * 1000)
        except BlockingIOError:
            idle += 1
            await anyio.sleep(0.005)
        else:
            idle = 0
            written += (bytes([len(written) % 251]) * 1000)[:size]
    return bytes(written)


async def test_one_that_was_not_begun_is_cancelled() -> None:
    Relay().cancel()  # the leak check looks
