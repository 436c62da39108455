"""Receipts on a log: what a second life knows of the first."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from stack import until

from sidecar.clock import ManualClock
from sidecar.durable.receipts import DiskReceipts, open_receipts
from sidecar.durable.writer import LogWriter
from sidecar.errors import LimitExceeded
from sidecar.protocol.ids import uuid7
from sidecar.protocol.receipts import (
    Conflict,
    Expired,
    Fenced,
    FenceOutcome,
    New,
    Receipt,
    Repeat,
    State,
    Terms,
)
from sidecar.receipts import Receipts
from sidecar.statefolder import StateUnusable

NOW = 1_800_000_000.0
DIGEST = b"d" * 32
BOOT, NEXT_BOOT = b"b" * 16, b"c" * 16


def call_id(number: int) -> bytes:
    """The id of a call made `number` milliseconds after the clock of the tests began."""
    return uuid7(millis=int(NOW * 1000) + number, random=bytes(10))


@asynccontextmanager
async def opened(
    folder: Path, *, clock: ManualClock | None = None, boot: bytes = BOOT, **bounds: Any
) -> AsyncIterator[DiskReceipts]:
    """Closed in order at the end of the block."""
    async with LogWriter() as writer:
        receipts = await open_receipts(folder, writer, clock or ManualClock(), boot=boot, **bounds)
        yield receipts
        await receipts.aclose()


def killed(folder: Path) -> Path:
    """The folder as a process finds it that is started after this one was killed now."""
    copy = folder.with_name(folder.name + "+")
    copy.mkdir()
    for path in sorted(folder.iterdir(), reverse=True):  # the oldest go first: leave no hole
        with suppress(FileNotFoundError):  # a segment whose time had come went meanwhile
            shutil.copy(path, copy)
    return copy


def size_of(folder: Path) -> int:
    sizes = []
    for name in os.listdir(folder):
        with suppress(FileNotFoundError):
            sizes.append((folder / name).stat().st_size)
    return sum(sizes)


async def run(receipts: Receipts, number: int, answer: bytes | None = b"answer") -> None:
    id = call_id(number)
    assert await receipts.begin(id, DIGEST, now_wall=NOW) == New()
    await receipts.started(id)
    await receipts.end(id, answer, now_wall=NOW)


async def test_a_call_that_ended_is_answered_in_the_next_life(tmp_path: Path) -> None:
    async with opened(tmp_path / "a") as first:
        assert first.durable
        assert first.is_whole
        await run(first, 1)
        await run(first, 2, None)
        again = killed(tmp_path / "a")
    async with opened(again) as second:
        assert second.is_whole
        assert second.left_open() == []
        found = await second.get(call_id(1))
        assert found == Receipt(call_id(1), DIGEST, State.ENDED, b"answer")
        ended = await second.begin(call_id(1), DIGEST, now_wall=NOW)
        assert ended == Repeat(State.ENDED, b"answer")
        gone = await second.begin(call_id(2), DIGEST, now_wall=NOW)
        assert gone == Repeat(State.ENDED, None)
        assert await second.begin(call_id(1), b"other", now_wall=NOW) == Conflict()


async def test_one_that_was_accepted_runs_once_when_it_comes_again(tmp_path: Path) -> None:
    written: list[str] = []
    async with opened(tmp_path / "a") as first:
        id = call_id(1)
        await first.begin(id, DIGEST, now_wall=NOW, on_written=lambda: written.append("one"))
        assert written == []
        await run(first, 2)
        assert written == ["one"]
        again = killed(tmp_path / "a")
    async with opened(again) as second:
        found = await second.get(id)
        assert found is not None
        assert found.state is State.RESEND
        assert second.open_count == 0
        assert await second.begin(id, b"other", now_wall=NOW) == Conflict()
        assert await second.begin(id, DIGEST, now_wall=NOW) == New()
        assert await second.begin(id, DIGEST, now_wall=NOW) == Repeat(State.ACCEPTED, None)


async def test_one_that_was_accepted_can_be_fenced_instead(tmp_path: Path) -> None:
    async with opened(tmp_path / "a") as first:
        await first.begin(call_id(1), DIGEST, now_wall=NOW)
    async with opened(tmp_path / "a") as second:
        assert await second.fence(call_id(1), now_wall=NOW) is FenceOutcome.FENCED
        again = killed(tmp_path / "a")
    async with opened(again) as third:
        assert await third.begin(call_id(1), DIGEST, now_wall=NOW) == Fenced()


async def test_one_that_had_started_is_left_open_with_what_its_command_noted(
    tmp_path: Path,
) -> None:
    terms = Terms("exec.run", NOW, 1060.0, NOW + 60, 1 << 20, "00-trace")
    async with opened(tmp_path / "a") as first:
        await first.begin(call_id(1), DIGEST, now_wall=NOW, terms=terms)
        await first.started(call_id(1), b"first")
        await first.started(call_id(1))
        await first.started(call_id(1), b"note")
        with pytest.raises(LimitExceeded, match="bytes of a note: 4097, at most 4096"):
            await first.started(call_id(1), bytes(4097))
        again = killed(tmp_path / "a")
    async with opened(again) as second:
        (left,) = second.left_open()
        assert left == Receipt(call_id(1), DIGEST, State.STARTED, None, terms, b"note")
        assert second.open_count == 1
        await second.end(call_id(1), b"answer", now_wall=NOW)
        again = killed(again)
    async with opened(again) as third:
        assert third.left_open() == []
        ended = await third.begin(call_id(1), DIGEST, now_wall=NOW)
        assert ended == Repeat(State.ENDED, b"answer")


async def test_a_deadline_means_the_same_moment_after_the_machine_was_started_again(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path / "a", clock=ManualClock(1000.0, NOW)) as first:
        terms = Terms("exec.run", NOW, 1060.0, NOW + 60)
        await first.begin(call_id(1), DIGEST, now_wall=NOW, terms=terms)
        await first.started(call_id(1), b"note")
    for _ in range(2):
        clock = ManualClock(5.0, NOW + 20)
        async with opened(tmp_path / "a", clock=clock, boot=NEXT_BOOT) as later:
            (left,) = later.left_open()
            assert left.terms is not None
            assert left.terms.deadline == 45.0


async def test_a_fence_lasts(tmp_path: Path) -> None:
    async with opened(tmp_path / "a") as first:
        assert await first.fence(call_id(1), now_wall=NOW) is FenceOutcome.FENCED
        assert await first.fence(call_id(1), now_wall=NOW) is FenceOutcome.FENCED
        again = killed(tmp_path / "a")
    async with opened(again) as second:
        assert await second.begin(call_id(1), DIGEST, now_wall=NOW) == Fenced()


async def test_what_expired_stays_so(tmp_path: Path) -> None:
    async with opened(tmp_path / "a", max_receipts=2) as first:
        for number in range(5):
            await run(first, number)
        again = killed(tmp_path / "a")
    async with opened(again, max_receipts=2) as second:
        outcome = await second.begin(call_id(0), DIGEST, now_wall=NOW)
        assert outcome == Expired(int(NOW * 1000) + 2)
        ended = await second.begin(call_id(4), DIGEST, now_wall=NOW)
        assert ended == Repeat(State.ENDED, b"answer")


async def test_after_a_power_cut_nothing_from_before_is_run(tmp_path: Path) -> None:
    """The start of a call may not have been on the disk."""
    async with opened(tmp_path / "a") as first:
        await run(first, 1)
        await first.begin(call_id(2), DIGEST, now_wall=NOW, terms=Terms("exec.run", NOW))
        await run(first, 3)
        again = killed(tmp_path / "a")
    clock = ManualClock(wall=NOW + 5)
    async with opened(again, clock=clock, boot=NEXT_BOOT) as second:
        assert not second.is_whole
        (left,) = second.left_open()
        assert (left.call_id, left.state, left.note) == (call_id(2), State.STARTED, None)
        ended = await second.begin(call_id(1), DIGEST, now_wall=NOW)
        assert ended == Repeat(State.ENDED, b"answer")
        lost = await second.begin(call_id(4), DIGEST, now_wall=NOW)
        assert lost == Expired(int(NOW * 1000) + 5000)
        assert await second.begin(call_id(5001), DIGEST, now_wall=NOW) == New()
        again = killed(again)
    async with opened(again, boot=NEXT_BOOT) as third:
        assert third.is_whole
        lost = await third.begin(call_id(4), DIGEST, now_wall=NOW)
        assert lost == Expired(int(NOW * 1000) + 5000)


async def test_closed_in_order_nothing_is_missing_after_the_next_boot(tmp_path: Path) -> None:
    async with opened(tmp_path / "a") as first:
        await first.begin(call_id(1), DIGEST, now_wall=NOW)
    async with opened(tmp_path / "a", boot=NEXT_BOOT) as second:
        assert second.is_whole
        assert await second.begin(call_id(1), DIGEST, now_wall=NOW) == New()


async def test_damage_is_met_as_a_loss_is(tmp_path: Path) -> None:
    async with opened(tmp_path / "a") as first:
        await first.begin(call_id(1), DIGEST, now_wall=NOW)
        await run(first, 2)
        again = killed(tmp_path / "a")
    (segment,) = again.glob("*.log")
    data = bytearray(segment.read_bytes())
    data[data.index(DIGEST)] ^= 1  # in the record that call 1 was accepted
    segment.write_bytes(data)
    async with opened(again, clock=ManualClock(wall=NOW + 5)) as second:
        assert not second.is_whole
        assert isinstance(await second.begin(call_id(1), DIGEST, now_wall=NOW), Expired)
        ended = await second.begin(call_id(2), DIGEST, now_wall=NOW)
        assert ended == Repeat(State.ENDED, b"answer")


async def test_the_folder_stays_within_its_bounds(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    bounds: dict[str, Any] = {
        "max_answers_bytes": 100_000,
        "segment_bytes": 16_384,
        "max_receipts": 40,
    }
    async with opened(folder, **bounds) as first:
        await first.begin(call_id(0), DIGEST, now_wall=NOW, terms=Terms("exec.run", NOW))
        await first.started(call_id(0), b"note")
        for number in range(1, 400):
            await run(first, number, os.urandom(3000))
            await first.tidy()
            if number % 40 == 0:  # a segment goes when what replaces it is synced
                await until(lambda: size_of(folder) < 300_000)
        await run(first, 400, b"last")
        again = killed(folder)
    async with opened(again, **bounds) as second:
        (left,) = second.left_open()
        assert (left.call_id, left.note) == (call_id(0), b"note")
        kept = await second.begin(call_id(400), DIGEST, now_wall=NOW)
        assert kept == Repeat(State.ENDED, b"last")
        older = await second.begin(call_id(375), DIGEST, now_wall=NOW)
        assert isinstance(older, Repeat)
        assert older.answer is not None
        assert len(older.answer) == 3000
        dropped = await second.begin(call_id(362), DIGEST, now_wall=NOW)
        assert dropped == Repeat(State.ENDED, None)
        assert isinstance(await second.begin(call_id(300), DIGEST, now_wall=NOW), Expired)


async def test_receipts_of_a_newer_version_are_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    async with opened(folder) as first:
        await run(first, 1)
    (segment,) = folder.glob("*.log")
    data = bytearray(segment.read_bytes())
    data[8] = 99
    segment.write_bytes(data)
    with pytest.raises(StateUnusable, match="newer sidecar"):
        async with opened(folder):
            pass
    assert segment.read_bytes() == data


async def test_a_torn_end_costs_only_what_nobody_was_told(tmp_path: Path) -> None:
    async with opened(tmp_path / "a") as first:
        await run(first, 1)
        await first.begin(call_id(2), DIGEST, now_wall=NOW)
        await run(first, 3)
        again = killed(tmp_path / "a")
    (segment,) = again.glob("*.log")
    os.truncate(segment, segment.stat().st_size - 3)
    async with opened(again) as second:
        assert second.is_whole
        (left,) = second.left_open()
        assert left.call_id == call_id(3)
        ended = await second.begin(call_id(1), DIGEST, now_wall=NOW)
        assert ended == Repeat(State.ENDED, b"answer")
