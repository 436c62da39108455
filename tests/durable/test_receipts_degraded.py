"""Receipts on a disk that is full or read-only: what is still promised, and what is refused."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from disks import FullDisk
from stack import until

from sidecar.clock import SystemClock
from sidecar.durable.receipts import DiskReceipts, open_receipts
from sidecar.durable.writer import LogWriter
from sidecar.errors import CallError, Code, Retry, Started
from sidecar.protocol.ids import uuid7
from sidecar.protocol.receipts import Expired, New, Repeat, State
from sidecar.statefolder import StateUnusable

DIGEST = b"d" * 32
BOOT = b"b" * 16


class Life:
    """Receipts on a disk that can be made to fail."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = SystemClock()
        self.disk = FullDisk()
        self.receipts: DiskReceipts

    async def begin(self, id: bytes) -> None:
        outcome = await self.receipts.begin(id, DIGEST, now_wall=self.clock.wall())
        assert outcome == New()

    async def run(self, id: bytes, answer: bytes = b"answer") -> None:
        await self.begin(id)
        await self.receipts.started(id)
        await self.receipts.end(id, answer, now_wall=self.clock.wall())

    async def again(self, id: bytes) -> object:
        return await self.receipts.begin(id, DIGEST, now_wall=self.clock.wall())

    @property
    def new_id(self) -> bytes:
        """Of this moment, whatever clock other tests gave to `identity.new_id`."""
        return uuid7(millis=int(self.clock.wall() * 1000), random=os.urandom(10))


@asynccontextmanager
async def life(folder: Path, *, error: int | None = None) -> AsyncIterator[Life]:
    """Closed in order at its end; what a disk does not take then is lost."""
    life = Life(folder)
    life.disk.error = error
    async with LogWriter() as writer:
        life.receipts = await open_receipts(folder, writer, life.clock, disk=life.disk, boot=BOOT)
        yield life
        await life.receipts.aclose()


FULL = [errno.ENOSPC, errno.EROFS, errno.EIO]


@pytest.mark.parametrize("error", FULL)
async def test_calls_go_on_without_the_disk_and_are_on_it_when_it_heals(
    tmp_path: Path, error: int
) -> None:
    async with life(tmp_path / "a") as here:
        before, meanwhile, started = here.new_id, here.new_id, here.new_id
        await here.run(before)
        here.disk.fail(error)
        await here.run(meanwhile)
        await here.begin(started)
        await here.receipts.started(started, b"note")
        assert not here.receipts.durable
        assert here.receipts.refusal is None  # the mark says that something is missing
        assert await here.again(meanwhile) == Repeat(State.ENDED, b"answer")
        here.disk.heal()
        await until(lambda: here.receipts.durable)
    async with life(tmp_path / "a") as here:
        assert here.receipts.is_whole
        assert await here.again(before) == Repeat(State.ENDED, b"answer")
        assert await here.again(meanwhile) == Repeat(State.ENDED, b"answer")
        (left,) = here.receipts.left_open()
        assert (left.call_id, left.note) == (started, b"note")


async def test_one_that_ended_before_it_heals_runs_nothing_from_before(tmp_path: Path) -> None:
    async with life(tmp_path / "a") as here:
        before, accepted, meanwhile = here.new_id, here.new_id, here.new_id
        await here.run(before)
        await here.begin(accepted)
        await here.run(here.new_id)  # so that what came before is written
        here.disk.fail()
        await here.receipts.started(accepted)
        await here.run(meanwhile)
        never_came = here.new_id
    async with life(tmp_path / "a") as here:
        assert not here.receipts.is_whole
        assert await here.again(before) == Repeat(State.ENDED, b"answer")
        assert isinstance(await here.again(meanwhile), Expired)
        assert isinstance(await here.again(never_came), Expired)
        assert [receipt.call_id for receipt in here.receipts.left_open()] == [accepted]


async def test_where_nothing_says_so_nothing_with_effects_is_begun(tmp_path: Path) -> None:
    async with life(tmp_path / "a") as here:
        caught_by_it, here_before = here.new_id, here.new_id
        await here.run(here_before)
        await here.begin(caught_by_it)
        await until(lambda: here.receipts._log.written == here.receipts._log.appended)
        here.disk.error = errno.ENOSPC
        with pytest.raises(CallError, match="might run twice") as caught:
            await here.receipts.started(caught_by_it)
        assert (caught.value.code, caught.value.started) == (Code.NO_SPACE, Started.NO)
        assert caught.value.retry is Retry.SAME_ID
        assert here.receipts.refusal is not None
        await here.receipts.end(caught_by_it, b"no room", now_wall=here.clock.wall())
        assert await here.again(caught_by_it) == Repeat(State.ENDED, b"no room")
        here.disk.heal()
        await until(lambda: here.receipts.durable)
        assert here.receipts.refusal is None
        await here.run(here.new_id)
    async with life(tmp_path / "a") as here:
        assert here.receipts.is_whole
        assert await here.again(caught_by_it) == Repeat(State.ENDED, b"no room")


async def test_a_first_start_on_a_full_disk_refuses_and_heals(tmp_path: Path) -> None:
    async with life(tmp_path / "a", error=errno.ENOSPC) as here:
        assert not here.receipts.durable
        assert here.receipts.refusal is not None
        here.disk.heal()
        await until(lambda: here.receipts.durable)
        id = here.new_id
        await here.run(id)
    async with life(tmp_path / "a") as here:
        assert here.receipts.is_whole
        assert await here.again(id) == Repeat(State.ENDED, b"answer")


async def test_a_disk_without_room_to_recover_on_forgets_nothing(tmp_path: Path) -> None:
    async with life(tmp_path) as first:
        await first.run(first.new_id)
    (tmp_path / "00000000000000ff.log").write_bytes(b"torn")
    with pytest.raises(StateUnusable, match="No space left on device"):
        async with life(tmp_path, error=errno.ENOSPC):
            pass
