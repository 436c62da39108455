"""Is a descriptor that somebody gave us what it should be?

Core gets descriptors from hands, which it does not trust. The kernel is asked, in ways that no
file system of the agent's can hold up: F_GETPIPE_SZ and SO_TYPE look at the descriptor
alone, and fstat(2) of another user's FUSE file is refused without asking him (kernel
documentation, filesystems/fuse: "allow_other"). Only close(2) may wait, for a flush, so what
is refused is closed in a thread of its own.
"""

from __future__ import annotations

import fcntl
import os
import queue
import socket
import stat
import threading
from collections.abc import Sequence
from contextlib import suppress

from sidecar.errors import ProtocolError
from sidecar.threads import is_shortage

MAX_WAITING = 64  # descriptors to be closed; only a file system that hangs makes so many


def check_file(descriptor: int, *, writable: bool = False) -> None:
    """A regular file that may be read, or read and written. Raises `ProtocolError`."""
    allowed = (os.O_RDWR,) if writable else (os.O_RDONLY, os.O_RDWR)
    if not stat.S_ISREG(_mode(descriptor)) or _access(descriptor) not in allowed:
        raise ProtocolError("a descriptor that is no regular file, where one was expected")


def check_end(descriptor: int) -> None:
    """A regular file that may be written at its end, and nowhere else. Raises `ProtocolError`."""
    is_end = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND
    if not (stat.S_ISREG(_mode(descriptor)) and _access(descriptor) == os.O_WRONLY and is_end):
        raise ProtocolError("a descriptor that is no end of a file, where one was expected")


def check_pipe(descriptor: int, *, writable: bool) -> None:
    """One end of a pipe. Raises `ProtocolError`."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_GETPIPE_SZ)
    except OSError:
        raise ProtocolError("a descriptor that is no pipe, where one was expected") from None
    if _access(descriptor) != (os.O_WRONLY if writable else os.O_RDONLY):
        raise ProtocolError("the wrong end of a pipe")


def check_socket(descriptor: int) -> None:
    """A Unix stream socket. Raises `ProtocolError`."""
    if stat.S_ISSOCK(_mode(descriptor)):
        found = socket.socket(fileno=descriptor)  # which asks the kernel what it is
        kind = found.family, found.type
        found.detach()
        if kind == (socket.AF_UNIX, socket.SOCK_STREAM):
            return
    raise ProtocolError("a descriptor that is no stream socket, where one was expected")


def _mode(descriptor: int) -> int:
    try:
        return os.fstat(descriptor).st_mode
    except OSError as error:
        raise ProtocolError(f"a file that cannot be looked at: {error.strerror}") from None


def _access(descriptor: int) -> int:
    """O_RDONLY, O_WRONLY or O_RDWR; of one that allows nothing (O_PATH) none of these."""
    return fcntl.fcntl(descriptor, fcntl.F_GETFL) & (os.O_ACCMODE | os.O_PATH)


def are_many_waiting() -> bool:
    """Whether so many could not be closed yet that no more should be let in."""
    return _CLOSER.waiting > MAX_WAITING


def discard(descriptors: Sequence[int]) -> None:
    """Close descriptors that nobody wants, where it may take its time."""
    if descriptors:
        _CLOSER.close(descriptors)


class _Closer:
    """One thread for them all, which ends when there is nothing to close: others may be next,
    but they are rare."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._works = False

    @property
    def waiting(self) -> int:
        return self._waiting.qsize()

    def close(self, descriptors: Sequence[int]) -> None:
        with self._lock:
            for descriptor in descriptors:
                self._waiting.put(descriptor)
            if self._works:
                return
            self._works = True
            try:
                threading.Thread(target=self._run, name="closer", daemon=True).start()
            except RuntimeError as error:
                if not is_shortage(error):
                    raise
                self._works = False  # they are closed with the next ones

    def _run(self) -> None:
        while True:
            with self._lock:
                if self._waiting.empty():
                    self._works = False
                    return
                descriptor = self._waiting.get()
            with suppress(OSError):  # a file system's word on its flush (close(2)); it is closed
                os.close(descriptor)


_CLOSER = _Closer()
