"""Pipes whose other owner makes them block: `Splicing` must not stand still."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator

import pytest

from sidecar.hands.pipeio import DIRECT, PipeIO, Splicing


@pytest.fixture
def splicing() -> Iterator[Splicing]:
    splicing = Splicing()
    yield splicing
    splicing.close()
    splicing.close()


@pytest.fixture(params=["direct", "splicing"])
def io(request: pytest.FixtureRequest, splicing: Splicing) -> PipeIO:
    return splicing if request.param == "splicing" else DIRECT


@pytest.fixture
def pipe(request: pytest.FixtureRequest) -> Iterator[list[int]]:
    """Read end and write end; a test that closes one puts -1 in its place."""
    ends = list(os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC))
    yield ends
    for end in ends:
        if end >= 0:
            os.close(end)


def make_blocking(pipe: list[int]) -> None:
    """As a hands does that shares the open file descriptions."""
    for end in pipe:
        os.set_blocking(end, True)


def test_what_was_written_is_read(io: PipeIO, pipe: list[int]) -> None:
    assert io.write(pipe[1], b"some bytes") == 10
    assert io.read(pipe[0], 4) == b"some"
    assert io.read(pipe[0], 100) == b" bytes"


def test_an_empty_pipe_says_so_and_an_ended_one_gives_nothing(io: PipeIO, pipe: list[int]) -> None:
    with pytest.raises(BlockingIOError):
        io.read(pipe[0], 100)
    os.close(pipe[1])
    pipe[1] = -1
    assert io.read(pipe[0], 100) == b""


def test_a_full_pipe_takes_a_part_and_then_nothing(io: PipeIO, pipe: list[int]) -> None:
    assert io.write(pipe[1], memoryview(b"x" * 100_000)) == 65_536
    with pytest.raises(BlockingIOError):
        io.write(pipe[1], b"y")
    assert io.read(pipe[0], 200_000) == b"x" * 65_536


def test_a_pipe_that_nobody_reads_is_broken(io: PipeIO, pipe: list[int]) -> None:
    os.close(pipe[0])
    pipe[0] = -1
    with pytest.raises(BrokenPipeError):
        io.write(pipe[1], b"x")


def test_an_empty_pipe_that_blocks_does_not_stop_us(splicing: Splicing, pipe: list[int]) -> None:
    make_blocking(pipe)
    with pytest.raises(BlockingIOError):
        splicing.read(pipe[0], 100)
    os.write(pipe[1], b"then it comes")
    assert splicing.read(pipe[0], 100) == b"then it comes"


def test_a_full_pipe_that_blocks_does_not_stop_us(splicing: Splicing, pipe: list[int]) -> None:
    make_blocking(pipe)
    assert splicing.write(pipe[1], b"x" * 100_000) == 65_536
    with pytest.raises(BlockingIOError):
        splicing.write(pipe[1], b"y")
    os.read(pipe[0], 4096)
    assert splicing.write(pipe[1], b"y" * 10_000) == 4096, "nothing of the last try stayed behind"


def test_many_pipes_share_one_without_mixing(splicing: Splicing, pipe: list[int]) -> None:
    other = os.pipe2(os.O_CLOEXEC)
    try:
        assert splicing.write(pipe[1], b"a" * 70_000) == 65_536
        assert splicing.write(other[1], b"b" * 70_000) == 65_536
        assert splicing.read(pipe[0], 70_000) == b"a" * 65_536
        assert splicing.read(other[0], 70_000) == b"b" * 65_536
    finally:
        os.close(other[0])
        os.close(other[1])


def test_a_program_that_writes_packets_leaves_none_to_the_next_one(
    io: PipeIO, pipe: list[int]
) -> None:
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.fcntl(writer, fcntl.F_SETFL, os.O_DIRECT | os.O_NONBLOCK)  # as any program can
    for _ in range(3):
        os.write(writer, b"packet")
    os.write(pipe[1], b"of another")
    found = io.read(reader, 100)
    assert io.read(pipe[0], 100) == b"of another"
    while len(found) < 18:
        found += io.read(reader, 100)
    assert found == b"packet" * 3
    os.close(reader)
    os.close(writer)


def test_what_cannot_be_read_back_leaves_nothing_to_the_next_one(
    splicing: Splicing, pipe: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    os.write(pipe[1], b"lost")

    def fail(fd: int, size: int) -> bytes:
        raise OSError(61, "No data available")

    with monkeypatch.context() as patch:
        patch.setattr(os, "read", fail)
        with pytest.raises(OSError, match="No data"):
            splicing.read(pipe[0], 100)
    os.write(pipe[1], b"another's")
    assert splicing.read(pipe[0], 100) == b"another's"
