"""The state folder: ours alone (0700), and locked, so that two cores never share it."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

LOCK_WAIT = 30.0  # seconds that a second core waits for the first to end
LOCK_STEP = 0.25  # seconds between tries
SOCKET_PATH_BYTES = 107  # unix(7): sun_path has 108, one of them ends it
LONGEST_NAME = "/agent.sock"  # of the sockets that will lie in it


class StateUnusable(Exception):
    """The state folder cannot be used; the sentence says why and how to mend it."""


class StateLocked(Exception):
    """Another sidecar uses the state folder and did not end in time."""


@asynccontextmanager
async def state_folder(path: Path, *, wait: float = LOCK_WAIT) -> AsyncIterator[Path]:
    """Make `path` if needed and hold its lock. Raises `StateUnusable` or `StateLocked`."""
    fd = await anyio.to_thread.run_sync(_prepare, path)
    try:
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
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
        if found.st_uid != os.geteuid():
            raise StateUnusable(
                f"{path} belongs to uid {found.st_uid}, we are {os.geteuid()}: set SIDECAR_STATE"
            )
        if stat.S_IMODE(found.st_mode) & 0o077:
            path.chmod(0o700)
        return os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateUnusable(
            f"{path}: {error.strerror}; set SIDECAR_STATE to a folder that can be written"
        ) from error


def _try_lock(fd: int) -> bool:
    """Harmless when it is ours already (flock(2))."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
