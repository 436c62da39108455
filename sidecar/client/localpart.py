"""The bytes of a file that are here already, beside the place where it will be.

`.NAME.TOKEN.sidecar-part` (`hands.names`), the token derived from what is copied: whoever copies it
again finds what came before, and goes on. One at a time: the part is locked (flock(2)) while
somebody writes it. A name is never followed: a part that is a link, has a second name or belongs
to somebody else is none of ours.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Sequence
from contextlib import suppress

from sidecar.errors import CallError, Code, show_path
from sidecar.hands.names import is_part, part_name

PERMISSIONS = 0o777  # the part of a mode that is copied: no set-id bits from a stranger
SOURCE_BYTES = 6  # of a token: what is copied; the other ten: which version of it

_OPEN = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_RACES = 16  # a part that is gone as soon as it is locked is opened anew, so many times


def token_of(source: str, version: str) -> bytes:
    """The token of a part: its beginning says what is copied, the rest which version of it."""
    digest = hashlib.sha256
    return (
        digest(source.encode("utf-8", "surrogateescape")).digest()[:SOURCE_BYTES]
        + (digest(version.encode()).digest()[: 16 - SOURCE_BYTES])
    )


class LocalPart:
    """Open and locked. Blocks: for threads. Raises `OSError`, and `conflict` if it is taken."""

    def __init__(self, directory: int, name: bytes, token: bytes) -> None:
        """The directory's descriptor is copied."""
        self.name = name
        self._part = part_name(name, token)
        self._directory = os.dup(directory)
        try:
            self.fd = self._open()
            self.size = os.fstat(self.fd).st_size
        except BaseException:
            os.close(self._directory)
            raise

    def write(self, chunks: Sequence[bytes]) -> None:
        """Add these bytes at the end."""
        for chunk in chunks:
            view = memoryview(chunk)
            while view:
                written = os.pwrite(self.fd, view, self.size)
                self.size += written
                view = view[written:]

    def truncate(self) -> None:
        """Begin anew."""
        os.ftruncate(self.fd, 0)
        self.size = 0

    def commit(self, mode: int, mtime_ns: int) -> None:
        """Become the file, in one step."""
        os.fchmod(self.fd, mode & PERMISSIONS)
        os.utime(self.fd, ns=(os.fstat(self.fd).st_atime_ns, mtime_ns))
        directory = self._directory
        os.rename(self._part, self.name, src_dir_fd=directory, dst_dir_fd=directory)

    def close(self, *, keep: bool) -> None:
        """After `commit` there is nothing to keep. An empty part never is kept."""
        try:
            if not keep or not self.size:
                with suppress(FileNotFoundError):
                    os.unlink(self._part, dir_fd=self._directory)
        finally:
            os.close(self.fd)
            os.close(self._directory)

    def _open(self) -> int:
        for _ in range(_RACES):
            fd = os.open(self._part, _OPEN, 0o600, dir_fd=self._directory)
            try:
                if self._take(fd):
                    return fd
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), os.fsdecode(self._part))

    def _take(self, fd: int) -> bool:
        """Lock it; whether it still bears its name then."""
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1 or found.st_uid != os.geteuid():
            raise FileExistsError(
                errno.EEXIST, "is in the way, and not ours", os.fsdecode(self._part)
            )
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CallError(
                Code.CONFLICT, f"{show_path(self.name)} is being copied by somebody else now"
            ) from None
        with suppress(FileNotFoundError):
            named = os.stat(self._part, dir_fd=self._directory, follow_symlinks=False)
            return os.path.samestat(found, named)
        return False


def open_directory_of(path: bytes) -> tuple[int, bytes]:
    """A descriptor of the directory that `path` lies in, which is the caller's, and its name."""
    above, name = os.path.split(path)
    return os.open(above or b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), name


def remove_older(directory: int, name: bytes, token: bytes) -> None:
    """Remove the parts of other versions of what `token` is of: nobody will finish them. One that
    is being written is left alone."""
    own = part_name(name, token)
    begin = own[: -len(token.hex()) - len(b".sidecar-part") + 2 * SOURCE_BYTES]
    for found in os.listdir(directory):
        other = os.fsencode(found)
        if other.startswith(begin) and other != own and is_part(other):
            with suppress(OSError, CallError):
                version = bytes.fromhex(other.rsplit(b".", 2)[1].decode())
                LocalPart(directory, name, version).close(keep=False)
