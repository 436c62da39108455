"""What of the programs lies on disk: the register, and a spool for each output that has any.

It is opened in a thread at the start, and what an earlier process left there is handed on: of
each program what is `saved`, where it stands, and its spools. A spool that belongs to no program
of the register is removed. All of it is of this boot; an older one is of no use to anybody.
"""

from __future__ import annotations

import logging
import os
import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from sidecar.processes.register import Register, Slot, TellingAt
from sidecar.processes.saved import Saved, SavedEnd, pack, pack_end, unpack, unpack_end
from sidecar.protocol.limits import SPOOL_HEAD_BYTES, SPOOL_TAIL_BYTES
from sidecar.protocol.streams import STDERR, STDOUT
from sidecar.spoolfile import SpoolFile

log = logging.getLogger(__name__)

SPOOL_NAME = re.compile(r"[0-9a-f]{32}\.[12]")
EARLIER = 1  # in place of a number of another series: no program's event has it in any


@dataclass(frozen=True, slots=True)
class Restored:
    """A program that an earlier core had started, or was about to start (then `pid` is 0)."""

    saved: Saved
    pid: int
    start_time: int
    is_fed: bool
    is_settled: bool
    is_condemned: bool
    told: TellingAt  # what of it stands in the journal
    end: SavedEnd | None
    spools: dict[int, SpoolFile] = field(default_factory=dict)


class ProgramStore:
    """Made by `open`. Nothing of it raises for a disk that fails: what is not on record is not
    known after a restart."""

    def __init__(
        self,
        folder: Path,
        register: Register | None,
        restored: list[Restored],
        series: bytes,
    ) -> None:
        self.restored = restored
        self.series = series  # the latter half of the journal's
        self._folder = folder
        self._register = register

    @classmethod
    def open(
        cls, state_folder: Path, *, series: bytes = b"", last: int | None = None
    ) -> ProgramStore:
        """Beside a journal that was found to end at `last` of `series`; None: nobody asks. Blocks:
        for a thread. Raises `StateUnusable` for a state that a newer sidecar wrote."""
        folder, series = state_folder / "spools", series[8:].ljust(8, b"\0")
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            register, slots = Register.open(state_folder / "programs")
        except OSError as error:
            log.warning("programs cannot be put on record: %s", error)
            return cls(folder, None, [], series)
        restored = []
        for slot in slots:
            try:
                found = _restore(folder, slot, _written(slot.told, series, last))
            except ValueError as error:
                log.warning("a program is not known any more: %s", error)
                register.drop_slot(slot)
            else:
                register.keep(found.saved.id, slot)
                if found.told != slot.told:  # before an event of ours gets the number
                    register.note_told(found.saved.id, found.told)
                restored.append(found)
        _sweep(folder, {_name(one.saved.id, n) for one in restored for n in one.spools})
        return cls(folder, register, sorted(restored, key=lambda one: one.saved.began), series)

    def path(self, id: bytes, n: int) -> Path:
        """Where the spool of this output is, or would be."""
        return self._folder / _name(id, n)

    def save(self, saved: Saved) -> None:
        """A program is about to be started, or something about it has changed."""
        if self._register is not None:
            self._register.put(saved.id, pack(saved))

    def note_spawned(self, id: bytes, pid: int, start_time: int) -> None:
        if self._register is not None:
            self._register.note_spawned(id, pid, start_time)

    def note_fed(self, id: bytes) -> None:
        if self._register is not None:
            self._register.note_fed(id)

    def note_condemned(self, id: bytes) -> None:
        """Its call is over, and it is to be ended: also by a later process."""
        if self._register is not None:
            self._register.note_condemned(id)

    def note_told(self, id: bytes, told: TellingAt) -> None:
        """Which events tell of its begin and its end."""
        if self._register is not None:
            self._register.note_told(id, told)

    def note_end(self, id: bytes, end: SavedEnd | None) -> None:
        """How it ended; None: it has not, after all."""
        if self._register is not None:
            self._register.note_end(id, None if end is None else pack_end(end))

    def note_settled(self, id: bytes, *, is_settled: bool) -> None:
        if self._register is not None:
            self._register.note_settled(id, is_settled=is_settled)

    def forget(self, id: bytes) -> None:
        """Nobody will ask for it any more; `remove_spools` follows."""
        if self._register is not None:
            self._register.drop(id)

    def remove_spools(self, id: bytes) -> None:
        """Of a program that was forgotten. Blocks: for a thread."""
        for n in (STDOUT, STDERR):
            with suppress(OSError):  # it had none, or the disk is read-only: the next start sweeps
                self.path(id, n).unlink()

    def close(self) -> None:
        """A later process goes on with what is there."""
        for one in self.restored:
            for file in one.spools.values():
                file.close()
        self.restored = []
        if self._register is not None:
            self._register.close()
            self._register = None


def _name(id: bytes, n: int) -> str:
    return f"{id.hex()}.{n}"


def _written(told: TellingAt, series: bytes, last: int | None) -> TellingAt:
    """Without what was never written: it lies behind the end of the very journal that it was
    meant for. What stood in another one, wherever that was, was told."""
    if told.series != series or last is None:
        return TellingAt(series, *(min(number, EARLIER) for number in told[1:]))
    return TellingAt(series, *(number * (number <= max(last, EARLIER)) for number in told[1:]))


def _restore(folder: Path, slot: Slot, told: TellingAt) -> Restored:
    saved = unpack(slot.content)
    end = None if slot.end is None else unpack_end(slot.end)
    spools = {}
    for n in (STDOUT, STDERR):
        path = folder / _name(saved.id, n)
        try:
            spools[n] = SpoolFile.reopen(path) if end is None else _reopen(path)
        except FileNotFoundError:
            continue  # it had printed nothing
        except OSError as error:  # what is there cannot be gone on with at its offset
            raise ValueError(f"{path}: {error.strerror}") from error
    return Restored(
        saved,
        slot.pid,
        slot.start_time,
        is_fed=slot.is_fed,
        is_settled=slot.is_settled,
        is_condemned=slot.is_condemned,
        told=told,
        end=end,
        spools=spools,
    )


def _reopen(path: Path) -> SpoolFile:
    """A spool; where it could not be made for want of space, one that says that bytes are missing,
    and nobody knows how many. Of a program that runs that would be a lie: it prints on, and what
    it prints would get the places of what is missing."""
    try:
        return SpoolFile.reopen(path)
    except ValueError as error:
        log.warning("an output is lost: %s", error)
        file = SpoolFile.create(path, head=SPOOL_HEAD_BYTES, tail=SPOOL_TAIL_BYTES)
        file.note_reading(1)
        return file


def _sweep(folder: Path, known: set[str]) -> None:
    """Remove the spools of no program, and nothing that is not named like a spool."""
    for entry in os.scandir(folder):
        if SPOOL_NAME.fullmatch(entry.name) and entry.name not in known:
            with suppress(OSError):
                os.unlink(entry.path)
