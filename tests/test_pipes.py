"""Pipes of programs: what is read, what makes a program wait, and who is told of an end."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from anyio.abc import TaskGroup
from stack import until

from sidecar import pipes
from sidecar.clock import ManualClock
from sidecar.pipes import PipeReader, PipeWriter
from sidecar.protocol.spool import OnFull
from sidecar.spool import Spool
from sidecar.spoolbudget import SpoolBudget


def pipe() -> tuple[int, int]:
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    return reader, writer


class Ends:
    """A pipe, its reader, and the spool that it fills."""

    def __init__(self, folder: Path, *, tail: int = 1 << 20, small: int = 32768) -> None:
        self.fd, self.writer = pipe()
        self.spool = Spool(
            folder / "spool", ManualClock(), SpoolBudget(), head=0, tail=tail, on_full=OnFull.HOLD
        )
        self.spool.follow(0)
        self.sizes: list[int] = []  # of the spool, whenever the reader said that it grew
        self.fillings = 0
        self.group: TaskGroup | None = None
        self.reader = PipeReader(self.spool, on_data=self.note, on_full=self.wait, small=small)

    def note(self) -> None:
        self.sizes.append(self.spool.size)

    def wait(self) -> None:
        assert self.group is not None
        self.fillings += 1
        self.group.start_soon(self.reader.wait_room)

    def close(self) -> None:
        self.reader.stop()
        self.spool.close()
        with_open = self.writer
        if with_open >= 0:
            os.close(with_open)
            self.writer = -1

    def hang_up(self) -> None:
        os.close(self.writer)
        self.writer = -1


@asynccontextmanager
async def running(folder: Path, *, tail: int = 1 << 20, small: int = 32768) -> AsyncIterator[Ends]:
    ends = Ends(folder, tail=tail, small=small)
    async with anyio.create_task_group() as group:
        ends.group = group
        ends.reader.connect(ends.fd)
        yield ends
        group.cancel_scope.cancel()
    ends.close()


async def test_what_is_written_lands_in_the_spool_until_the_end(tmp_path: Path) -> None:
    async with running(tmp_path) as ends:
        os.write(ends.writer, b"first ")
        await until(lambda: ends.spool.size == 6)
        os.write(ends.writer, b"second")
        ends.hang_up()
        with anyio.fail_after(5):
            await ends.reader.wait_finished()
        assert (await ends.spool.read(0, 100)).data == b"first second"
        assert ends.reader.taken == 12
        assert ends.sizes == [6, 12]
        assert (await ends.spool.read(12, 1)).ended
        assert ends.fillings == 0


async def test_only_after_a_small_read_the_pipe_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipes, "GATHER", 60.0)
    async with running(tmp_path, small=10) as ends:
        os.write(ends.writer, b"x" * 10)
        await until(lambda: ends.spool.size == 10)
        os.write(ends.writer, b"x" * 9)
        await until(lambda: ends.spool.size == 19)
        os.write(ends.writer, b"x")
        await anyio.wait_all_tasks_blocked()
        assert ends.reader.waiting == 1
        ends.reader.flush()
        assert ends.spool.size == 20


async def test_a_spool_without_room_is_a_pipe_that_is_not_read(tmp_path: Path) -> None:
    async with running(tmp_path, tail=10) as ends:
        os.write(ends.writer, b"0123456789abcdefghij")
        await until(lambda: ends.spool.size == 10)
        await anyio.wait_all_tasks_blocked()
        assert ends.reader.waiting == 10
        assert ends.fillings == 1
        ends.spool.progress(4)
        await until(lambda: ends.spool.size == 14)
        ends.spool.progress(14)
        await until(lambda: ends.spool.size == 20)
        assert (await ends.spool.read(14, 100)).data == b"efghij"


async def test_a_flush_takes_what_is_there_and_does_not_wait_for_more(tmp_path: Path) -> None:
    async with running(tmp_path) as ends:
        os.write(ends.writer, b"x" * 50_000)
        ends.reader.flush()
        assert ends.spool.size == 50_000
        os.write(ends.writer, b"y")
        ends.hang_up()
        ends.reader.flush()
        assert ends.spool.size == 50_001
        assert ends.reader.is_finished
        ends.reader.flush()


async def test_what_is_discarded_is_read_and_not_kept(tmp_path: Path) -> None:
    async with running(tmp_path) as ends:
        ends.reader.discard()
        os.write(ends.writer, b"x" * 50_000)
        await until(lambda: ends.reader.waiting == 0)
        assert ends.spool.size == 0
        assert ends.reader.is_over
        assert (await ends.spool.read(0, 1)).ended
        ends.hang_up()
        with anyio.fail_after(5):
            await ends.reader.wait_finished()


async def test_a_spool_closed_under_a_reader_that_waits_for_room_discards(tmp_path: Path) -> None:
    async with running(tmp_path, tail=10) as ends:
        os.write(ends.writer, bytes(20))
        await until(lambda: ends.spool.size == 10)
        await anyio.wait_all_tasks_blocked()
        ends.spool.close()
        await until(lambda: ends.reader.waiting == 0)
        os.write(ends.writer, bytes(20))
        await until(lambda: ends.reader.waiting == 0)


async def test_stopping_closes_the_pipe_and_ends_the_spool(tmp_path: Path) -> None:
    ends = Ends(tmp_path)
    ends.reader.connect(ends.fd)
    ends.reader.stop()
    with pytest.raises(BrokenPipeError):
        os.write(ends.writer, b"x")
    assert (await ends.spool.read(0, 1)).ended
    ends.close()


async def test_a_writer_waits_as_long_as_nobody_reads() -> None:
    reader, fd = pipe()
    noted: list[bool] = []
    writer = PipeWriter(fd, on_data=lambda: noted.append(True))
    data = os.urandom(300_000)
    got = bytearray()

    async def read() -> None:
        while len(got) < len(data):
            await anyio.wait_readable(reader)
            got.extend(os.read(reader, 10_000))

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        assert await writer.write(data) == 300_000
    assert got == data
    assert len(noted) > 2
    writer.close()
    writer.close()
    assert not writer.is_open
    assert os.read(reader, 1) == b""
    os.close(reader)


async def test_what_does_not_fit_is_not_waited_for() -> None:
    reader, fd = pipe()
    writer = PipeWriter(fd, on_data=lambda: None)
    rest = writer.write_at_once(bytes(300_000))
    assert 0 < len(rest) < 300_000
    assert writer.write_at_once(rest) == rest
    assert writer.is_open
    writer.close()
    os.close(reader)


async def test_a_writer_learns_that_nobody_will_read_again() -> None:
    reader, fd = pipe()
    writer = PipeWriter(fd, on_data=lambda: None)
    os.close(reader)
    assert await writer.write(b"x") == 0
    assert not writer.is_open
    assert await writer.write(b"x") == 0


async def test_a_writer_that_waits_is_told_when_it_is_closed() -> None:
    reader, fd = pipe()
    writer = PipeWriter(fd, on_data=lambda: None)
    taken: list[int] = []

    async def write() -> None:
        taken.append(await writer.write(bytes(300_000)))

    async with anyio.create_task_group() as group:
        group.start_soon(write)
        await anyio.wait_all_tasks_blocked()
        writer.close()
    assert taken == [65_536]
    assert len(os.read(reader, 300_000)) == 65_536
    os.close(reader)
