"""How many bytes of content have left for good: a mapped word of the state folder.

The kernel keeps what was stored in a shared mapping when the process that did so is killed
(mmap(2), MAP_SHARED), and an aligned machine word is there whole or not at all. So to count is a
store and no system call, and `kill -9` takes nothing back. It is synced when the sidecar ends in
order; a power cut may take what was counted in the half minute before it.

    word 0      what this is, and the version of the format
    1           bytes

The file is written before it is mapped, so that its block is there: a store to a page for which
the disk has no room would be SIGBUS.
"""

from __future__ import annotations

import logging
import mmap
import os
from pathlib import Path

from sidecar.statefolder import StateUnusable

log = logging.getLogger(__name__)

PAGE = 4096  # bytes
NAME = b"egress"
VERSION = 1
_KIND, _SPENT = 0, 1


class EgressFile:
    """Made by `open`. Used in one thread."""

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, PAGE)
        self._words = memoryview(self._map).cast("Q")

    @classmethod
    def open(cls, path: Path) -> EgressFile:
        """What an earlier life counted is gone on with. Raises `OSError`, `ValueError` for a file
        that is no such count, and `StateUnusable` for one that a newer sidecar wrote."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            head = os.pread(fd, 8, 0)
            if not head:
                os.pwrite(fd, _kind().ljust(PAGE, b"\0"), 0)
            elif head[: len(NAME)] == NAME and head[-1] > VERSION:
                raise StateUnusable(
                    f"{path} has format {head[-1]}, and this sidecar knows {VERSION}: use the"
                    " newer sidecar that wrote it, or set SIDECAR_STATE to another folder"
                )
            elif head != _kind() or os.fstat(fd).st_size < PAGE:
                raise ValueError(f"{path} is no count of what has left")
            return cls(fd)
        finally:
            os.close(fd)

    @property
    def spent(self) -> int:
        return self._words[_SPENT]

    def note(self, spent: int) -> None:
        self._words[_SPENT] = spent

    def close(self) -> None:
        """Blocks until the disk has it: for a thread."""
        self._words.release()
        self._map.flush()
        self._map.close()


def _kind() -> bytes:
    return NAME + bytes((0, VERSION))


def open_count(path: Path, *, is_needed: bool) -> EgressFile | None:
    """The count; None if it cannot be kept and nothing hangs on it. Blocks. Raises `StateUnusable`
    where there is a limit: to count anew after a restart would allow what it forbids."""
    try:
        return EgressFile.open(path)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        if is_needed:
            raise StateUnusable(
                f"{path}: {why}: what has left is limited by SIDECAR_EGRESS_RUN and cannot be"
                " counted; move the file away to begin anew"
            ) from error
        log.warning("what has left is not counted across restarts: %s: %s", path, why)
        return None
