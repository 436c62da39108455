"""The state folder: ours alone (0700), and locked, so that two cores never share it."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from sidecar.access import owner_of
from sidecar.runtimefolder import SOCKET_PATH_BYTES, make_private, runtime_folder
from sidecar.threads import in_thread

LOCK_WAIT = 30.0  # seconds that a second core waits for the first to end
LOCK_STEP = 0.25  # seconds between tries
LONGEST_NAME = "/agent.sock"  # of the sockets that will lie in it
# In it, and what is in them comes and goes with them.
FOLDERS = ("journal", "receipts", "spools", "uploads")

_log = logging.getLogger(__name__)


class StateUnusable(Exception):
    """The state folder cannot be used; the sentence says why and how to mend it."""


class StateLocked(Exception):
    """Another sidecar uses the state folder and did not end in time."""


@asynccontextmanager
async def state_folder(path: Path, *, wait: float = LOCK_WAIT) -> AsyncIterator[Path]:
    """Make `path` if needed and hold its lock. Raises `StateUnusable` or `StateLocked`."""
    fd = await in_thread(_prepare, path)
    try:
        if not _try_lock(fd):
            _log.warning("%s is in use by another sidecar: waiting %.0f s for its end", path, wait)
        with anyio.move_on_after(wait):
            while not _try_lock(fd):  # noqa: ASYNC110 - flock tells nobody when it is free
                await anyio.sleep(LOCK_STEP)
        if not _try_lock(fd):
            raise StateLocked(f"{path} is in use by another sidecar: end it, or set SIDECAR_STATE")
        yield path
    finally:
        os.close(fd)


def _prepare(path: Path) -> int:
    if len(os.fsencode(path)) + len(LONGEST_NAME) > SOCKET_PATH_BYTES:
        raise StateUnusable(
            f"{path} is too long for the sockets in it, whose paths may have"
            f" {SOCKET_PATH_BYTES} bytes: set SIDECAR_STATE to a shorter one"
        )
    try:
        if path.parent == runtime_folder():
            make_private(path.parent)
        make_private(path, follow=True)
        for name in FOLDERS:  # never through a link: files are removed there that nobody knows
            make_private(path / name)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(path / "lock", flags, 0o600)
    except OSError as error:
        raise StateUnusable(_explain(path, error)) from error


def _explain(path: Path, error: OSError) -> str:
    where = error.filename or path
    why, help = error.strerror or str(error), "set SIDECAR_STATE to a folder of ours"
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        why = "not a folder"
    elif error.errno == errno.EACCES:
        why = f"{error.strerror}: {owner_of(where)}"
    elif error.errno == errno.EROFS:
        help = "mount a volume there that may be written, or set SIDECAR_STATE to one"
    return f"the state folder cannot be used: {where}: {why}; {help}"


def _try_lock(fd: int) -> bool:
    """Harmless when it is ours already (flock(2))."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
