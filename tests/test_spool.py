"""The bytes of a spool: on a real disk, against a model that keeps all of them."""

from __future__ import annotations

import os
import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.clock import ManualClock, SystemClock
from sidecar.errors import CallError, Invalid
from sidecar.protocol.spool import OnFull
from sidecar.reading import OffsetReader
from sidecar.spool import Piece, Spool
from sidecar.spoolbudget import SpoolBudget
from sidecar.spoolfile import PAGE, SpoolFile

KIB = 1024
MIB = 1024 * KIB


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    """The defaults: 4 MiB of head, 12 MiB of tail."""
    spool = Spool(tmp_path / "spool", ManualClock(), SpoolBudget())
    yield spool
    spool.close()


def output_of(size: int) -> bytes:
    """Bytes that differ from place to place, so that none is taken for another."""
    return b"".join(number.to_bytes(8, "big") for number in range(size // 8 + 1))[:size]


def print_all(spool: Spool, output: bytes) -> None:
    view = memoryview(output)
    while view:
        size = min(spool.room, 256 * KIB)
        spool.write(view[:size])
        view = view[size:]


async def read_all(spool: Spool, max_bytes: int = 256 * KIB) -> list[tuple[int, bytes]]:
    """What can be read, as (offset, bytes), pieces that touch put together."""
    pieces: list[tuple[int, bytes]] = []
    offset = 0
    while (piece := await spool.read(offset, max_bytes)).data:
        if pieces and piece.offset == offset:
            pieces[-1] = (pieces[-1][0], pieces[-1][1] + piece.data)
        else:
            pieces.append((piece.offset, piece.data))
        offset = piece.offset + len(piece.data)
    return pieces


async def wait_data(spool: Spool, offset: int) -> None:
    """Until there are bytes after `offset`, or there will be none, as its readers wait."""
    while offset >= spool.size and not spool.has_ended:
        await spool.wait_grown()


async def test_a_short_output_is_read_from_memory(spool: Spool, tmp_path: Path) -> None:
    spool.write(b"hello ")
    spool.write(memoryview(bytearray(b"world")))
    spool.write(b"")
    assert await spool.read(0, 100) == Piece(0, b"hello world", ended=False)
    assert await spool.read(6, 3) == Piece(6, b"wor", ended=False)
    assert await spool.read(11, 100) == Piece(11, b"", ended=False)
    spool.end()
    assert await spool.read(0, 5) == Piece(0, b"hello", ended=False)
    assert await spool.read(6, 100) == Piece(6, b"world", ended=True)
    assert await spool.read(11, 100) == Piece(11, b"", ended=True)
    with pytest.raises(Invalid, match="offset 12 is outside"):
        await spool.read(12, 100)
    assert names_in(tmp_path) == ["spool"]


def names_in(folder: Path) -> list[str]:
    return os.listdir(folder)


def descriptors_in(folder: Path) -> int:
    """How many files of ours lie in `folder`, named or not."""
    links = []
    for fd in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the one that listed the folder
            links.append(os.readlink(f"/proc/self/fd/{fd}"))
    return sum(link.startswith(str(folder)) for link in links)


async def test_a_long_output_is_on_disk_and_stays_there(spool: Spool, tmp_path: Path) -> None:
    output = output_of(1 * MIB)
    print_all(spool, output)
    assert await read_all(spool) == [(0, output)]
    assert names_in(tmp_path) == ["spool"]
    spool.close()
    assert descriptors_in(tmp_path) == 0
    assert names_in(tmp_path) == ["spool"]


async def test_what_prints_nothing_costs_no_file(spool: Spool, tmp_path: Path) -> None:
    assert spool.is_untouched
    spool.end()
    spool.close()
    assert names_in(tmp_path) == []


async def test_head_and_tail_of_a_very_long_output_are_kept(spool: Spool) -> None:
    output = output_of(21 * MIB)
    print_all(spool, output)
    spool.end()
    assert await read_all(spool, MIB) == [(0, output[: 4 * MIB]), (9 * MIB, output[9 * MIB :])]
    assert (spool.size, spool.dropped, spool.unwritten) == (21 * MIB, 5 * MIB, 0)
    assert (await spool.read(21 * MIB - 3, 100)).ended


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["print", "follow", "progress", "unfollow"]), st.integers(0, 40)),
        max_size=40,
    ),
    on_full=st.sampled_from(OnFull),
    max_bytes=st.integers(1, 50),
)
@settings(max_examples=60, deadline=None)
async def test_what_is_read_is_what_was_printed(
    steps: list[tuple[str, int]], on_full: OnFull, max_bytes: int
) -> None:
    output = b""
    position = 0  # behind everything that a promise is made for
    with tempfile.TemporaryDirectory() as folder:
        spool = Spool(
            Path(folder) / "spool", ManualClock(), SpoolBudget(), head=16, tail=48, on_full=on_full
        )
        is_protected = on_full is OnFull.HOLD
        for step, number in steps:
            if step == "print":
                data = output_of(400)[len(output) % 300 :][: min(number, spool.room)]
                spool.write(data)
                output += data
            elif step == "follow":
                position = min(number, len(output))
                spool.follow(position)
                is_protected = True
            elif step == "progress":
                spool.progress(min(number * 10, len(output)))
                position = max(position, min(number * 10, len(output)))
            else:
                spool.unfollow()
                is_protected = on_full is OnFull.HOLD
            if is_protected and len(output) - position <= 48:
                unread = await spool.read(position, 1)
                assert unread.offset == position or position < 16

        tail = max(16, len(output) - 48)
        expected = [(0, output)] if tail == 16 else [(0, output[:16]), (tail, output[tail:])]
        assert await read_all(spool, max_bytes) == [piece for piece in expected if piece[1]]
        assert spool.size == len(output)
        spool.close()


async def test_a_filter_sees_everything_before_it_is_kept(tmp_path: Path) -> None:
    spool = Spool(
        tmp_path, ManualClock(), SpoolBudget(), filter=lambda data: data.replace(b"key", b"***")
    )
    spool.write(memoryview(b"the key is here"))
    assert (await spool.read(0, 100)).data == b"the *** is here"
    spool.close()


async def test_a_filter_that_changes_the_length_is_a_defect(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", ManualClock(), SpoolBudget(), filter=lambda data: data[1:])
    with pytest.raises(AssertionError, match="a filter made 2 of 3 bytes"):
        spool.write(b"abc")
    spool.close()


async def test_a_reader_waits_for_bytes_and_for_the_end(spool: Spool) -> None:
    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(wait_data, spool, 0)
        await anyio.wait_all_tasks_blocked()
        with anyio.move_on_after(0):
            await wait_data(spool, 0)
        spool.write(b"abc")
    await wait_data(spool, 2)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait_data, spool, 3)
        await anyio.wait_all_tasks_blocked()
        spool.end()
        spool.end()


async def test_the_writer_waits_for_its_owner(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", ManualClock(), SpoolBudget(), head=10, tail=20)
    spool.follow(0)
    spool.write(bytes(30))
    rooms = []

    async def wait() -> None:
        rooms.append(await spool.wait_room())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        spool.progress(10)
        await anyio.wait_all_tasks_blocked()
        assert rooms == []
        spool.progress(13)
    assert rooms == [3]
    spool.close()


async def test_the_writer_goes_on_when_its_owner_leaves(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", ManualClock(), SpoolBudget(), head=10, tail=20)
    spool.follow(0)
    spool.write(bytes(30))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(spool.wait_room)
        await anyio.wait_all_tasks_blocked()
        spool.unfollow()
    spool.close()


async def test_the_writer_goes_on_when_its_owner_is_silent_for_too_long(tmp_path: Path) -> None:
    spool = Spool(
        tmp_path / "spool", SystemClock(), SpoolBudget(), head=10, tail=20, hold_time=0.05
    )
    spool.follow(0)
    spool.write(bytes(30))
    assert spool.room == 0
    with anyio.fail_after(5):
        assert await spool.wait_room() == 20
    spool.close()


async def test_one_write_takes_at_most_1_mib(spool: Spool) -> None:
    assert spool.room == 1 * MIB
    spool.write(bytes(1 * MIB))
    assert await spool.wait_room() == 1 * MIB


def replace_file(spool: Spool, path: str | Path, flags: int) -> None:
    """What `spool` reads and writes is another file from here on."""
    assert spool._file is not None
    other = os.open(path, flags)
    os.dup2(other, spool._file.fd)
    os.close(other)


async def test_a_full_disk_stops_no_program(spool: Spool) -> None:
    spool.expect(1)
    replace_file(spool, "/dev/full", os.O_RDWR)
    output = output_of(512 * KIB)
    print_all(spool, output)
    assert spool.disk_error == "ENOSPC"
    assert (spool.size, spool.dropped, spool.unwritten) == (512 * KIB, 448 * KIB, 448 * KIB)
    spool.end()
    assert await read_all(spool) == [(0, output[: 64 * KIB])]
    assert await spool.read(64 * KIB, 100) == Piece(512 * KIB, b"", ended=True)


async def test_a_folder_that_is_gone_stops_no_program(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "gone" / "spool", ManualClock(), SpoolBudget())
    spool.note_gap()
    spool.write(bytes(65 * KIB))
    assert spool.disk_error == "ENOENT"
    assert (spool.unwritten, spool.gaps) == (1 * KIB, [0])
    (tmp_path / "gone").mkdir()
    spool.write(b"afterwards")
    assert await spool.read(64 * KIB, 100) == Piece(65 * KIB, b"afterwards", ended=False)
    spool.close()
    file = SpoolFile.reopen(tmp_path / "gone" / "spool")
    assert file.gaps == [0]
    file.close()


@contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_what_a_failing_disk_took_is_kept_and_the_rest_comes_again(spool: Spool) -> None:
    output = output_of(400 * KIB)
    with no_file_longer_than(PAGE + 200 * KIB):
        spool.write(output[: 300 * KIB])
    assert (spool.disk_error, spool.unwritten) == ("EFBIG", 100 * KIB)
    spool.write(output[300 * KIB :])
    expected = [(0, output[: 200 * KIB]), (300 * KIB, output[300 * KIB :])]
    assert await read_all(spool) == expected


async def test_a_spool_that_is_closed_to_make_room_for_itself_keeps_nothing(tmp_path: Path) -> None:
    """A child of an ended program prints on, and the program is the next to be forgotten."""
    budget = SpoolBudget(2 * MIB)
    spool = Spool(tmp_path / "spool", ManualClock(), budget)
    budget.make_room = lambda size: spool.close()
    print_all(spool, b"x" * MIB)
    spool.write(b"x" * MIB)
    assert budget.used == 0


async def test_spools_share_a_budget_and_the_late_ones_are_smaller(tmp_path: Path) -> None:
    budget = SpoolBudget(20 * MIB)
    first, second = (Spool(tmp_path / "spool", ManualClock(), budget) for _ in range(2))
    output = output_of(20 * MIB)
    last = output[-64 * KIB :]
    print_all(first, output)
    print_all(second, output)
    assert first.dropped == 4 * MIB
    assert await read_all(second) == [(0, output[: 4 * MIB]), (20 * MIB - 64 * KIB, last)]
    assert budget.used == 20 * MIB

    third = Spool(tmp_path / "spool", ManualClock(), budget)
    print_all(third, output)
    third.end()
    assert await read_all(third) == [(0, output[: 64 * KIB]), (20 * MIB - 64 * KIB, last)]
    for spool in (first, second, third):
        spool.close()
        spool.close()
    assert budget.used == 0


def test_an_ended_spool_gives_back_what_it_does_not_use(tmp_path: Path) -> None:
    budget = SpoolBudget()
    spool = Spool(tmp_path / "spool", ManualClock(), budget)
    spool.write(b"abc")
    assert budget.used == 1 * MIB + 3
    spool.end()
    assert budget.used == 3
    spool.close()


async def test_whoever_waits_for_a_closed_spool_is_told(tmp_path: Path) -> None:
    spool = Spool(
        tmp_path / "spool", ManualClock(), SpoolBudget(), head=10, tail=20, on_full=OnFull.HOLD
    )
    spool.write(bytes(30))
    told = []

    async def data() -> None:
        with pytest.raises(anyio.ClosedResourceError):
            await wait_data(spool, 30)
        told.append("data")

    async def room() -> None:
        with pytest.raises(anyio.ClosedResourceError):
            await spool.wait_room()
        told.append("room")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(data)
        tasks.start_soon(room)
        await anyio.wait_all_tasks_blocked()
        spool.close()
    assert sorted(told) == ["data", "room"]
    with pytest.raises(anyio.ClosedResourceError):
        await spool.read(0, 1)
    with pytest.raises(anyio.ClosedResourceError):
        spool.write(b"abc")


async def test_bytes_overwritten_while_they_are_read_are_not_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path / "spool", ManualClock(), SpoolBudget(), head=10, tail=20)
    output = output_of(60)
    spool.write(output[:30])
    writes = [output[30:34], output[34:54], b""]
    load = OffsetReader.read

    async def slow(reader: OffsetReader, offset: int, size: int) -> bytes:
        data = await load(reader, offset, size)
        spool.write(writes.pop(0))
        return data

    monkeypatch.setattr(OffsetReader, "read", slow)
    assert await spool.read(10, 100) == Piece(14, output[14:30], ended=False)
    assert await spool.read(14, 100) == Piece(34, output[34:50], ended=False)
    spool.close()


async def test_a_disk_that_cannot_be_read_is_an_error_of_the_call(
    spool: Spool, tmp_path: Path
) -> None:
    (tmp_path / "write-only").touch()
    spool.expect(1)
    replace_file(spool, tmp_path / "write-only", os.O_WRONLY)
    spool.write(bytes(65 * KIB))
    with pytest.raises(CallError, match="spool"):
        await spool.read(64 * KIB, 100)
    os.truncate(tmp_path / "write-only", 0)
    replace_file(spool, tmp_path / "write-only", os.O_RDONLY)
    with pytest.raises(CallError, match="shorter than what was written"):
        await spool.read(64 * KIB, 100)
