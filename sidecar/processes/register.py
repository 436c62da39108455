"""What core needs to take up its programs after a restart: a file with a slot for each.

A slot is written before its program is spawned and changed at the few moments that matter, each
time with one pwrite(2) of 2 us: the kernel keeps it when we are killed. Nothing is synced, for
no program outlives the machine; a file of another boot is begun anew.

    page 0      magic, version of the format, boot id
    page n      size and CRC-32 of what is saved; pid and start time (0 until it was spawned);
                1 when it has ended and all that it printed is kept; 1 when it got all of the
                input that came with its call; 1 when its call is over and it is to be ended
      at 64     which events told that it began and that it ended: the latter half of their
                series, and their numbers, 0 before
      at 96     what is saved
      at 3072   size and CRC-32 of how it ended, as observed; how it ended

What a slot holds is CBOR, and `saved` knows what it says. A disk that will not take it costs
nothing but that: such a program is not known after a restart (`disk_error` says why).
"""

from __future__ import annotations

import errno
import logging
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sidecar.durable.recovery import boot_id
from sidecar.protocol.limits import PROGRAM_SLOTS
from sidecar.statefolder import StateUnusable

log = logging.getLogger(__name__)

MAGIC = b"programs"
VERSION = 1
SLOT = 4096
STEP = 64  # slots that are reserved on disk at once
_FILE = struct.Struct("=8sQ16s")
_HEAD = struct.Struct("=IIqqqqq")
_END = struct.Struct("=II")
_SPAWNED = struct.Struct("=qq")
_WORD = struct.Struct("=q")
_TOLD = struct.Struct("=8sQQ")
_AT_SPAWNED, _AT_SETTLED, _AT_FED, _AT_CONDEMNED = 8, 24, 32, 40
_AT_TOLD, _AT_CONTENT, _AT_END = 64, 96, 3072
CONTENT_BYTES = _AT_END - _AT_CONTENT
END_BYTES = SLOT - _AT_END - _END.size


class TellingAt(NamedTuple):
    """Where in the journal it stands that a program began, and that it ended; 0: nowhere."""

    series: bytes = bytes(8)  # the latter half, which is random
    started: int = 0
    ended: int = 0


@dataclass(frozen=True, slots=True)
class Slot:
    """What an earlier process left of one program. Bytes are CBOR."""

    number: int
    content: bytes
    pid: int
    start_time: int
    is_settled: bool
    is_fed: bool
    end: bytes | None
    is_condemned: bool = False
    told: TellingAt = TellingAt()


class Register:
    """Made by `open`, in a thread; everything else is quick, and never raises."""

    def __init__(self, fd: int) -> None:
        self.disk_error: str | None = None  # the latest, as in "ENOSPC"
        self._fd = fd
        self._slots: dict[bytes, int] = {}
        self._free = list(range(PROGRAM_SLOTS, 0, -1))
        self._reserved = 0  # slots below it have room on disk

    @classmethod
    def open(cls, path: Path) -> tuple[Register, list[Slot]]:
        """The register and what an earlier process left in it. Raises `OSError`, and
        `StateUnusable` for one that a newer sidecar wrote."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            head = os.pread(fd, _FILE.size, 0).ljust(_FILE.size, b"\0")
            magic, version, boot = _FILE.unpack(head)
            if magic == MAGIC and version > VERSION:
                raise StateUnusable(
                    f"{path} has format {version}, and this sidecar knows {VERSION}: use the"
                    " newer sidecar that wrote it, or set SIDECAR_STATE to another folder"
                )
            register = cls(fd)
            if (magic, boot) == (MAGIC, boot_id()):
                return register, list(register._load())
            os.ftruncate(fd, 0)
            os.pwrite(fd, _FILE.pack(MAGIC, VERSION, boot_id()), 0)
            return register, []
        except BaseException:
            os.close(fd)
            raise

    def _load(self) -> Iterator[Slot]:
        for number in range(1, PROGRAM_SLOTS + 1):
            page = os.pread(self._fd, SLOT, number * SLOT)
            if len(page) < SLOT:
                page = page.ljust(SLOT, b"\0")
                if not any(page):
                    return
            size, crc, pid, start_time, settled, fed, condemned = _HEAD.unpack_from(page)
            content = page[_AT_CONTENT : _AT_CONTENT + min(size, CONTENT_BYTES)]
            if not size or zlib.crc32(content) != crc:
                continue
            size, crc = _END.unpack_from(page, _AT_END)
            end = page[_AT_END + _END.size :][: min(size, END_BYTES)]
            is_whole = size > 0 and zlib.crc32(end) == crc
            yield Slot(
                number,
                content,
                pid,
                start_time,
                is_settled=settled != 0,
                is_fed=fed != 0,
                is_condemned=condemned != 0,
                told=TellingAt(*_TOLD.unpack_from(page, _AT_TOLD)),
                end=end if is_whole else None,
            )

    def keep(self, id: bytes, slot: Slot) -> None:
        """The program of `slot` is known by this id from here on."""
        self._slots[id] = slot.number
        self._free.remove(slot.number)

    def drop_slot(self, slot: Slot) -> None:
        """Nobody knows what it says."""
        self._write(slot.number, 0, _END.pack(0, 0))

    # Programs ----------------------------------------------------------------------------

    def put(self, id: bytes, content: bytes) -> None:
        """A program is about to be started, or what is saved of it has changed."""
        number = self._slots.get(id)
        if number is None:
            if not self._free:
                self._fail("EDQUOT")
                return
            number = self._slots[id] = self._free.pop()
            self._reserve(number)
            page = _HEAD.pack(len(content), zlib.crc32(content), 0, 0, 0, 0, 0)
            page = page.ljust(_AT_CONTENT, b"\0") + content
            # Behind it is how the one ended that had this slot before.
            self._write(number, 0, page.ljust(_AT_END + _END.size, b"\0"))
        else:  # at once, so that whoever reads it finds the one or the other
            head = os.pread(self._fd, _AT_CONTENT, number * SLOT)[_END.size :]
            head = head.ljust(_AT_CONTENT - _END.size, b"\0")
            self._write(number, 0, _END.pack(len(content), zlib.crc32(content)) + head + content)

    def note_spawned(self, id: bytes, pid: int, start_time: int) -> None:
        self._note(id, _AT_SPAWNED, _SPAWNED.pack(pid, start_time))

    def note_fed(self, id: bytes) -> None:
        """A program got all of the input that came with its call."""
        self._note(id, _AT_FED, _WORD.pack(1))

    def note_condemned(self, id: bytes) -> None:
        """Its call is over: whoever finds it alive is to end it."""
        self._note(id, _AT_CONDEMNED, _WORD.pack(1))

    def note_told(self, id: bytes, told: TellingAt) -> None:
        """Before the journal is written, so that a number behind the journal's end says that the
        event went with us."""
        self._note(id, _AT_TOLD, _TOLD.pack(*told))

    def note_end(self, id: bytes, content: bytes | None) -> None:
        """How it ended; None: it has not, after all."""
        content = content or b""
        self._note(id, _AT_END, _END.pack(len(content), zlib.crc32(content)) + content)

    def note_settled(self, id: bytes, *, is_settled: bool) -> None:
        """Whether all that it printed until its end is kept."""
        self._note(id, _AT_SETTLED, _WORD.pack(is_settled))

    def drop(self, id: bytes) -> None:
        """Nobody will ask for it any more. Harmless when repeated."""
        number = self._slots.pop(id, None)
        if number is not None:
            self._write(number, 0, _END.pack(0, 0))
            self._free.append(number)

    def close(self) -> None:
        os.close(self._fd)

    def _note(self, id: bytes, at: int, data: bytes) -> None:
        number = self._slots.get(id)
        if number is not None:
            self._write(number, at, data)

    def _reserve(self, number: int) -> None:
        """Have room on disk beforehand, so that a disk that fills up costs no ends."""
        if number >= self._reserved:
            self._reserved = number + STEP
            with suppress(OSError):  # if it matters, the write fails, too
                os.posix_fallocate(self._fd, number * SLOT, STEP * SLOT)

    def _write(self, number: int, at: int, data: bytes) -> None:
        try:
            os.pwrite(self._fd, data, number * SLOT + at)
        except OSError as error:
            self._fail(errno.errorcode.get(error.errno or 0, "EIO"))

    def _fail(self, why: str) -> None:
        if self.disk_error != why:
            log.warning("programs may not be known after a restart: %s", why)
        self.disk_error = why
