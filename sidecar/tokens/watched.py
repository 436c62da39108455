"""A small file that somebody else writes, read again and again, and whether it is another now.

It is looked at from time to time, and not watched: a watch misses what other hosts write to a
network mount, and a secret that Kubernetes mounts is exchanged by a link two folders above. Nobody
looks while all is well, so that an idle sidecar sleeps.
"""

from __future__ import annotations

import os
from pathlib import Path

import anyio

from sidecar.access import sentence
from sidecar.errors import SettingsError
from sidecar.threads import in_thread

POLL_INTERVAL = 1.0  # seconds between looks, while somebody waits for a change,
EAGER_LOOKS = 60  # for so many looks; then
IDLE_POLL_INTERVAL = 5.0  # seconds, because nobody seems to be in a hurry
MAX_FILE = 64 * 1024  # bytes; Azure's own limit on a token is far lower, as it travels in a header

Mark = tuple[int, int, int, int]


class WatchedFile:
    """Remembers which file it read last: the inode, when it was changed (its content, and who may
    read it), and its size."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: Mark | None = None
        self._looks = 0  # since it was read

    async def read(self) -> str:
        """The text. Raises `SettingsError`, which names the file and quotes nothing of it."""
        self._seen = await in_thread(_look, self.path)  # if we may not read it
        self._looks = 0
        try:
            self._seen, data = await in_thread(_read, self.path)
            if len(data) > MAX_FILE:
                raise SettingsError(f"{self.path}: more than {MAX_FILE} bytes; this is no token")
            return data.decode()
        except UnicodeDecodeError:
            raise SettingsError(f"{self.path}: it is not text") from None

    async def changed(self) -> None:
        """Return when there is a file, and another one than `read` last saw."""
        while await in_thread(_look, self.path) in (None, self._seen):
            self._looks += 1
            is_eager = self._looks <= EAGER_LOOKS
            await anyio.sleep(POLL_INTERVAL if is_eager else IDLE_POLL_INTERVAL)


def _mark(status: os.stat_result) -> Mark:
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size


def _look(path: Path) -> Mark | None:
    try:
        return _mark(path.stat())
    except OSError:
        return None


def _read(path: Path) -> tuple[Mark, bytes]:
    try:
        with path.open("rb") as file:
            return _mark(os.fstat(file.fileno())), file.read(MAX_FILE + 1)
    except OSError as error:
        raise SettingsError(f"{path}: {sentence(path, error)}") from None
