"""A file is replaced in one step: its readers see the old bytes or the new, never a mixture.

The bytes go to a temporary file beside the target, because rename(2) is atomic only within one
file system; it is called `.NAME.RANDOM.sidecar-part`, and what a killed sidecar leaves behind can
be told by that. `commit` is fsync, rename, fsync of the directory: the order that survives a
power cut. The new file has the old one's permissions, and its owner where we may set it; other
hard links keep the old bytes, and ACLs and extended attributes are not carried over.

A symbolic link as the target is followed, beneath the root as ever, and what it points to is
replaced or made; the link stays.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress

from sidecar.errors import CallError, Code, Invalid, Outside, Started, from_os_error, show_path
from sidecar.hands.interface import FileStat, Path, stat_of
from sidecar.hands.local.beneath import MAX_LINKS, Beneath, Place
from sidecar.hands.local.paths import check_mode, check_time
from sidecar.hands.local.threads import Threads
from sidecar.hands.names import parent_and_name

SUFFIX = b".sidecar-part"
KEPT_NAME = 64  # bytes of the target's name in the temporary one: NAME_MAX is 143 on eCryptfs
PERMISSIONS = 0o777  # kept of an old file; new bytes do not inherit set-user-id

_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Part:
    """The temporary file and where it will go. Blocks; `LocalUpload` is its face."""

    def __init__(self, path: Path, place: Place, default_mode: int) -> None:
        """Make the temporary file in `place`. The directory's descriptor is copied."""
        self._path = path
        self._name = place.name
        self._default_mode = default_mode
        _check_target(path, place)
        self._part = part_name(place.name)
        self._directory = os.dup(place.directory)
        try:
            self.fd = os.open(self._part, _CREATE, 0o600, dir_fd=self._directory)
        except BaseException:
            os.close(self._directory)
            raise

    def commit(self, mode: int | None, mtime_ns: int | None) -> FileStat:
        renamed = False
        try:
            self._adopt(mode, mtime_ns)
            os.fsync(self.fd)
            directory = self._directory
            os.rename(self._part, self._name, src_dir_fd=directory, dst_dir_fd=directory)
            renamed = True
            _sync_directory(directory)
            return stat_of(os.fstat(self.fd))
        except OSError as error:
            started = Started.YES if renamed else Started.NO
            raise from_os_error(error, self._path, started=started) from None
        finally:
            self._release(unlink=not renamed)

    def abort(self) -> None:
        self._release(unlink=True)

    def _adopt(self, mode: int | None, mtime_ns: int | None) -> None:
        """Give the temporary file the owner, the mode and the time that the target shall have."""
        chosen = self._default_mode
        with suppress(FileNotFoundError):
            old = os.stat(self._name, dir_fd=self._directory, follow_symlinks=False)
            if stat.S_ISREG(old.st_mode):
                chosen = old.st_mode & PERMISSIONS
                with suppress(PermissionError):
                    os.fchown(self.fd, old.st_uid, old.st_gid)
        os.fchmod(self.fd, chosen if mode is None else mode)
        if mtime_ns is not None:
            os.utime(self.fd, ns=(os.fstat(self.fd).st_atime_ns, mtime_ns))

    def _release(self, *, unlink: bool) -> None:
        with suppress(OSError):
            if unlink:
                os.unlink(self._part, dir_fd=self._directory)
        os.close(self.fd)
        os.close(self._directory)


class LocalUpload:
    """An upload of `LocalHands`. It owns `fd`, which is -1 once the upload has ended."""

    def __init__(self, part: Part, threads: Threads, on_end: Callable[[LocalUpload], None]) -> None:
        self.fd = part.fd
        self._part: Part | None = part
        self._threads = threads
        self._on_end = on_end

    async def commit(self, *, mode: int | None = None, mtime_ns: int | None = None) -> FileStat:
        """See `Upload.commit`. It ends the upload, also by an error; once begun it is not cut
        short by cancelling."""
        if mode is not None:
            check_mode(mode)
        if mtime_ns is not None:
            check_time(mtime_ns)
        part = self._take()
        if part is None:
            raise Invalid("this upload has ended")
        return await self._threads.run(part.commit, mode, mtime_ns)

    async def abort(self) -> None:
        part = self._take()
        if part is not None:
            await self._threads.run(part.abort)

    def _take(self) -> Part | None:
        part, self._part = self._part, None
        self.fd = -1
        self._on_end(self)
        return part


def begin(beneath: Beneath, path: Path, default_mode: int) -> Part:
    """Make the temporary file for `path`, or for what `path` points to."""
    where: Path = path
    for _ in range(MAX_LINKS + 1):
        with beneath.parent(where) as place:
            target = _link_target(place)
            if target is None:
                return Part(path, place, default_mode)
        if target.startswith(b"/"):
            raise Outside(path)
        directory, _name, _slash = parent_and_name(beneath.relative(where))
        where = directory + b"/" + target
    raise from_os_error(OSError(errno.ELOOP, os.strerror(errno.ELOOP)), path)


def part_name(name: bytes) -> bytes:
    """A name for the temporary file, cut between characters: some file systems insist on UTF-8."""
    kept = name[:KEPT_NAME].decode("utf-8", "ignore").encode()
    return b"." + kept + b"." + secrets.token_hex(6).encode() + SUFFIX


def _link_target(place: Place) -> bytes | None:
    try:
        return os.readlink(place.name, dir_fd=place.directory)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.EINVAL:  # no link
            return None
        raise


def _check_target(path: Path, place: Place) -> None:
    if place.has_slash:
        raise CallError(Code.IS_DIRECTORY, f"{show_path(path)} names a directory", path=path)
    with suppress(FileNotFoundError):
        mode = place.lstat().st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode):
            raise CallError(Code.UNSUPPORTED, f"{show_path(path)} is no regular file")


def _sync_directory(directory: int) -> None:
    opened = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that syncs no directories (fsync(2))
            raise
    finally:
        os.close(opened)
