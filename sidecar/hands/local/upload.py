"""A file is replaced in one step: its readers see the old bytes or the new, never a mixture.

The bytes go to a part beside the target (see `parts`). `commit` is fsync, rename, fsync of the
directory: the order that survives a power cut. The new file has the old one's permissions, and
its owner where we may set it; other hard links keep the old bytes, and ACLs and extended
attributes are not carried over.

A symbolic link as the target is followed, beneath the root as ever, and what it points to is
replaced or made; the link stays.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from sidecar.errors import CallError, Code, Invalid, Started, from_os_error, show_path
from sidecar.hands.fileinterface import ABSENT, PRESENT, FileStat, Path, stat_of
from sidecar.hands.local.beneath import Beneath, Place
from sidecar.hands.local.parts import Part, discard_part, find_part, make_part, take_part
from sidecar.hands.local.paths import check_mode, check_time
from sidecar.hands.local.targets import target_of
from sidecar.hands.local.threads import Threads
from sidecar.hands.local.turns import Turns

PERMISSIONS = 0o777  # kept of an old file; new bytes do not inherit set-user-id
UPLOAD_BYTES = 16  # of an id


class Replacement:
    """A part and where it will go. Blocks; `LocalUpload` is its face."""

    def __init__(
        self, path: Path, place: Place, upload: bytes | None, default_mode: int, turns: Turns
    ) -> None:
        """Make or take up the part in `place`. The directory's descriptor is copied."""
        self._path = path
        self._name = place.name
        self._default_mode = default_mode
        self._turns = turns
        self._lock = threading.Lock()  # an abort waits for the commit that it comes too late for
        self._directory = os.dup(place.directory)
        try:
            self._part: Part = (
                make_part(self._directory, place.name)
                if upload is None
                else take_part(path, self._directory, place.name, upload)
            )
        except BaseException:
            os.close(self._directory)
            raise
        self.fd = self._part.fd  # -1 once this has ended
        self.size = self._part.size

    def commit(self, mode: int | None, mtime_ns: int | None, expect: str | None) -> FileStat:
        """See `Upload.commit`."""
        with self._lock:
            if self.fd < 0:
                raise Invalid("this upload has ended")
            started = Started.NO
            try:
                os.fsync(self.fd)
                self._take_place(mode, mtime_ns, expect)
                started = Started.YES
                os.fsync(self.fd)  # owner, mode and time; with the rename that is one more write
                _sync_directory(self._directory)
                found = stat_of(os.fstat(self.fd))
            except OSError as error:
                self._release(drop=started is Started.NO)
                raise from_os_error(error, self._path, started=started) from None
            self._release(drop=False)
            return found

    def abort(self) -> None:
        """See `Upload.abort`."""
        with self._lock:
            if self.fd >= 0:
                self._release(drop=True)

    def _take_place(self, mode: int | None, mtime_ns: int | None, expect: str | None) -> None:
        """Nobody of us changes the target between the look at it and the rename. Up to that look
        the part stays as it is: somebody may have to take it up again."""
        directory = os.fstat(self._directory)
        with self._turns.hold((directory.st_dev, directory.st_ino, self._name)):
            old = self._target()
            self._check(expect, old)
            self._adopt(old, mode, mtime_ns)
            try:
                is_there, replace = old is not None, expect != ABSENT
                self._part.publish(self._name, is_there=is_there, replace=replace)
            except BaseException as error:
                self._disown()
                if isinstance(error, FileExistsError):
                    raise self._is_other() from None
                raise

    def _adopt(self, old: os.stat_result | None, mode: int | None, mtime_ns: int | None) -> None:
        """Give the part the owner, the mode and the time that the target shall have."""
        chosen = self._default_mode
        if old is not None and stat.S_ISREG(old.st_mode):
            chosen = old.st_mode & PERMISSIONS
            with suppress(PermissionError):
                os.fchown(self.fd, old.st_uid, old.st_gid)
        os.fchmod(self.fd, chosen if mode is None else mode)
        if mtime_ns is not None:
            os.utime(self.fd, ns=(os.fstat(self.fd).st_atime_ns, mtime_ns))

    def _disown(self) -> None:
        """Make it a part again that can be taken up."""
        with suppress(OSError):
            os.fchown(self.fd, os.geteuid(), -1)
            os.fchmod(self.fd, 0o600)
            os.utime(self.fd)

    def _check(self, expect: str | None, old: os.stat_result | None) -> None:
        if expect is None:
            return
        found = ABSENT if old is None else stat_of(old).etag
        if expect != found and not (expect == PRESENT and old is not None):
            raise self._is_other()

    def _is_other(self) -> CallError:
        what = f"{show_path(self._path)} is not what it was"
        return CallError(Code.PRECONDITION_FAILED, what, path=self._path)

    def _target(self) -> os.stat_result | None:
        try:
            return os.stat(self._name, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _release(self, *, drop: bool) -> None:
        if drop:
            self._part.drop()
        os.close(self.fd)
        os.close(self._directory)
        self.fd = -1


class LocalUpload:
    """An upload of `LocalHands`. It owns `fd`."""

    def __init__(
        self, replacement: Replacement, threads: Threads, on_end: Callable[[LocalUpload], None]
    ) -> None:
        self._replacement = replacement
        self._threads = threads
        self._on_end = on_end

    @property
    def fd(self) -> int:
        return self._replacement.fd

    @property
    def size(self) -> int:
        return self._replacement.size

    async def commit(
        self, *, mode: int | None = None, mtime_ns: int | None = None, expect: str | None = None
    ) -> FileStat:
        """See `Upload.commit`. Once begun it is not cut short by cancelling."""
        if mode is not None:
            check_mode(mode)
        if mtime_ns is not None:
            check_time(mtime_ns)
        try:
            return await self._threads.run(self._replacement.commit, mode, mtime_ns, expect)
        finally:
            if self.fd < 0:
                self._on_end(self)

    async def abort(self) -> None:
        if self.fd >= 0:
            await self._threads.run(self._replacement.abort)
        self._on_end(self)


def begin(
    root: Beneath, path: Path, upload: bytes | None, default_mode: int, turns: Turns
) -> Replacement:
    """Make the part for `path`, or for what `path` points to."""
    if upload is not None:
        check_upload(upload)
    with target_of(root, path) as place:
        return Replacement(path, place, upload, default_mode, turns)


def look(root: Beneath, path: Path, upload: bytes) -> FileStat | None:
    """See `FileHands.part`."""
    check_upload(upload)
    try:
        with target_of(root, path) as place:
            found = find_part(path, place, upload)
    except CallError as error:
        if error.code is Code.NOT_FOUND:  # nor is the directory
            return None
        raise
    return None if found is None else stat_of(found)


def discard(root: Beneath, path: Path, upload: bytes, older_than: float) -> bool:
    """See `FileHands.discard`. A part from the future is as old as it is young: the clock of this
    machine was once wrong."""
    check_upload(upload)

    def is_due(found: os.stat_result) -> bool:
        return abs(time.time() - found.st_mtime) >= older_than

    try:
        with target_of(root, path) as place:
            return discard_part(path, place, upload, is_due)
    except CallError as error:
        if error.code is Code.NOT_FOUND:
            return True
        raise


def check_upload(upload: bytes) -> None:
    """Raise `Invalid` unless this may be the id of an upload."""
    if len(upload) != UPLOAD_BYTES:
        raise Invalid(f"an upload id of {len(upload)} bytes: {UPLOAD_BYTES} expected")


def _sync_directory(directory: int) -> None:
    opened = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that syncs no directories (fsync(2))
            raise
    finally:
        os.close(opened)
