"""The file of the socket at which hands listens: made safely, and gone afterwards.

Nobody can connect before all is set: a socket has its file from bind(2) on, with the mode that
fchmod(2) gave it before, and takes connections from listen(2) on. A file that is left over from
a hands that was killed is removed only after nobody answered there, under a lock on its folder,
so that of two that start together one is told that the other is there.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

SOCKET_PATH_BYTES = 107  # unix(7): sun_path has 108, one of them ends it
BACKLOG = 16
LOCK_TIME = 5.0  # seconds that another one may take to start
LOCK_STEP = 0.05


class Unusable(Exception):
    """There can be no socket; the sentence says why."""


class InUse(Exception):
    """Another hands listens there."""


@contextmanager
def listening(path: str, *, mode: int) -> Iterator[socket.socket]:
    """A socket that listens at `path`. Its owner closes it; the file goes with the block."""
    with _locked_folder(path):
        _remove_stale(path)
        listener = _bind(path, mode)
        ours = _hold(path)
    try:
        yield listener
    finally:
        listener.close()
        _remove(path, ours)


@contextmanager
def _locked_folder(path: str) -> Iterator[None]:
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES:
        raise Unusable(f"{path} is longer than the {SOCKET_PATH_BYTES} bytes of a socket's path")
    folder = os.path.dirname(path) or "."
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise Unusable(f"{folder}: {error.strerror}") from None
    try:
        _lock(fd, folder)
        yield
    finally:
        os.close(fd)


def _lock(fd: int, folder: str) -> None:
    give_up = time.monotonic() + LOCK_TIME
    while True:
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > give_up:
                raise InUse(f"somebody keeps a lock on {folder}") from None
            time.sleep(LOCK_STEP)
        except OSError as error:
            raise Unusable(f"{folder}: {error.strerror}") from None


def _remove_stale(path: str) -> None:
    """Only what was a socket, and only if nobody listens. Connecting without a word is no
    harm: hands counts nobody as its core who has not said hello."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise Unusable(f"{path} is there already, and is no socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
            refusal = probe.connect_ex(path)
        if refusal in (0, errno.EAGAIN):
            raise InUse(f"another hands listens at {path}")
        if refusal != errno.ECONNREFUSED:
            raise Unusable(f"{path}: {os.strerror(refusal)}")
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise Unusable(f"{path}: {error.strerror}") from None


def _bind(path: str, mode: int) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(listener.fileno(), mode)
        umask = os.umask(0)
        try:
            listener.bind(path)
        finally:
            os.umask(umask)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise Unusable(f"{path}: {error.strerror}") from None
    return listener


def _hold(path: str) -> int | None:
    """A descriptor of our file. As long as it is open no other file has the same number, not
    even one of a hands that was started while we end."""
    with suppress(OSError):
        return os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    return None


def _remove(path: str, ours: int | None) -> None:
    """Only what is ours, so under the lock: nobody may put his own in its place meanwhile."""
    if ours is None:
        return
    with suppress(OSError, InUse, Unusable), _locked_folder(path):
        if os.path.samestat(os.lstat(path), os.fstat(ours)):
            os.unlink(path)
    os.close(ours)
