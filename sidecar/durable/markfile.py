"""The mark on disk: one block, set aside once and then overwritten in place."""

from __future__ import annotations

import logging
from pathlib import Path

from sidecar.durable.disk import Disk
from sidecar.protocol.mark import Mark, encode_mark

log = logging.getLogger(__name__)


class MarkFile:
    """Used in one thread at a time."""

    def __init__(self, path: Path, disk: Disk) -> None:
        self.path = path
        self._disk = disk
        self._fd = -1

    def put(self, mark: Mark) -> None:
        """Return once `mark` survives a power cut. Raises `OSError`."""
        if self._fd < 0:
            self._open()
        self._disk.write(self._fd, encode_mark(mark), 0)
        self._disk.sync(self._fd)

    def _open(self) -> None:
        try:
            self._fd = self._disk.open(self.path)
        except FileNotFoundError:
            self._fd = self._disk.open(self.path, create=True)
            self._disk.sync_folder(self.path.parent)

    def close(self) -> None:
        if self._fd >= 0:
            self._disk.close(self._fd)
            self._fd = -1


def try_mark(mark_file: MarkFile, mark: Mark) -> bool:
    try:
        mark_file.put(mark)
    except OSError as error:
        log.error("the state folder cannot even be marked: %s", error)
        return False
    return True
