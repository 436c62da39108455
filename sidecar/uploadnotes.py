"""Which parts of uploads may lie in the workspace: a small file for each, in the state folder.

A note is written before its part is made and removed after that is gone, so that nothing is
forgotten by a process that is killed. It is named for the path and the id, and holds both as CBOR
with the time. The folder is named by a descriptor and none of its names is followed: whatever else
lies there is left alone.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sidecar.errors import LimitExceeded, ProtocolError
from sidecar.protocol import envelope
from sidecar.protocol.fields import is_bytes, is_text
from sidecar.protocol.limits import KIB, UPLOADS

log = logging.getLogger(__name__)

NAME = re.compile(r"[0-9a-f]{32}")
NOTE_BYTES = 16 * KIB  # a path, and some room
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MAKE = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Note:
    """An upload that was begun; `wall` is when."""

    path: str | bytes
    upload: bytes
    wall: float

    @property
    def name(self) -> str:
        """Of its file: the same for the same path, as it was written, and id."""
        return note_name(self.path, self.upload)


def note_name(path: str | bytes, upload: bytes) -> str:
    """The name of the note of an upload."""
    raw = path.encode("utf-8", "surrogatepass") if isinstance(path, str) else path
    return hashlib.sha256(upload + raw).hexdigest()[:32]


class UploadNotes:
    """All of them, by name. What blocks is for a thread; a disk that fails is logged, and what it
    would not take is not swept after a restart."""

    def __init__(self, folder: Path | None = None) -> None:
        """Without a folder they are in memory only."""
        self._folder = folder
        self._notes: dict[str, Note] = {}

    @classmethod
    def open(cls, folder: Path) -> UploadNotes:
        """With those that an earlier process left. Blocks."""
        notes = cls(folder)
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            with _opened(folder) as directory:
                for name in filter(NAME.fullmatch, os.listdir(directory)):
                    with suppress(OSError):  # a link, or what we may not read: not of us
                        if (note := _read(directory, name)) is not None:
                            notes._notes[name] = note
        except OSError as error:
            log.warning("uploads of an earlier process cannot be found: %s", error)
        return notes

    def __len__(self) -> int:
        return len(self._notes)

    def all(self) -> list[Note]:
        return list(self._notes.values())

    def put(self, note: Note) -> bool:
        """Before the part is made; whether there was no such note. Blocks. Raises
        `LimitExceeded`."""
        is_new = note.name not in self._notes
        if is_new and len(self._notes) >= UPLOADS:
            raise LimitExceeded("uploads that have not ended", size=UPLOADS + 1, limit=UPLOADS)
        self._notes[note.name] = note
        self._change(partial(_write, note=note))
        return is_new

    def drop(self, name: str) -> None:
        """After the part is gone. Blocks. Harmless if there is no such note."""
        if self._notes.pop(name, None) is not None:
            self._change(partial(_remove, name=name))

    def _change(self, work: Callable[[int], None]) -> None:
        if self._folder is None:
            return
        try:
            with _opened(self._folder) as directory:
                work(directory)
        except OSError as error:
            log.warning("an upload cannot be put on record: %s", error)


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    directory = os.open(folder, _FOLDER)
    try:
        yield directory
    finally:
        os.close(directory)


def _write(directory: int, note: Note) -> None:
    """Over the one that is there, which is as long: killed at any moment, one of them is there."""
    fd = os.open(note.name, _MAKE, 0o600, dir_fd=directory)
    try:
        os.ftruncate(fd, os.write(fd, envelope.dumps([note.path, note.upload, note.wall])))
    finally:
        os.close(fd)


def _remove(directory: int, name: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)


def _read(directory: int, name: str) -> Note | None:
    """None, and the file is removed, if it is not what we write: a process was killed meanwhile,
    and had made no part yet."""
    fd = os.open(name, _READ, dir_fd=directory)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        content = os.read(fd, NOTE_BYTES)
    finally:
        os.close(fd)
    note = _note(content)
    if note is None or note.name != name:
        os.unlink(name, dir_fd=directory)
        return None
    return note


def _note(content: bytes) -> Note | None:
    try:
        path, upload, wall = envelope.loads(content)
    except (ProtocolError, TypeError, ValueError):
        return None
    is_path = is_text(path) or is_bytes(path)
    is_note = is_path and is_bytes(upload) and type(wall) is float
    return Note(path, upload, wall) if is_note else None
