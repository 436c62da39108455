"""The `hands` interface: whatever must happen as the agent and where the agent is.

Hands opens paths, spawns and reaps programs, and gives core *descriptors*; core does the
reading and writing. Core holds the token, the journal and the receipts and never touches a
workspace path by itself: its uid may not even be allowed to. The in-process form is
`sidecar.hands.local`; another form will speak this same interface over a Unix socket, so
nothing here passes an object that could not cross one: paths, numbers, descriptors.

Paths are `str | bytes`, relative to the workspace root (an absolute path under the root is
accepted too); bytes for names that are not UTF-8. Every path operation is confined: nothing
outside the root is opened, made, renamed or removed, through symbolic links, `..` or races.

Errors: `CallError` with a code from `sidecar.errors` (`outside`, `not_found`, ...).
Cancelling any method is safe: descriptors made by a cancelled call are closed.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

Path = str | bytes


class FileType(enum.StrEnum):
    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    FIFO = "fifo"
    SOCKET = "socket"
    CHARACTER = "character"
    BLOCK = "block"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class FileStat:
    """lstat of one path; times are nanoseconds since the epoch."""

    type: FileType
    size: int
    mode: int  # permission bits, 0 to 0o7777
    mtime_ns: int
    inode: int
    device: int
    uid: int
    gid: int
    links: int
    target: bytes | None = None  # of a symbolic link, as stored

    @property
    def etag(self) -> str:
        """Changes when the file does: device, inode, size and mtime."""
        return f"{self.device:x}-{self.inode:x}-{self.size:x}-{self.mtime_ns:x}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a directory, as bytes, with its lstat."""

    name: bytes
    stat: FileStat


@dataclass(frozen=True, slots=True)
class Listing:
    """One page of a directory, sorted by name. `more` is True if entries follow `after`."""

    entries: list[Entry]
    more: bool


class OpenMode(enum.StrEnum):
    READ = "read"  # a regular file; a FIFO or device answers `unsupported` and never blocks


@dataclass(frozen=True, slots=True)
class Program:
    """What to run. Exactly one of `argv` and `shell`; `shell` runs as `$SHELL or /bin/sh -c`."""

    argv: Sequence[str | bytes] | None = None
    shell: str | None = None
    cwd: Path | None = None  # None: the workspace root
    env: Mapping[str, str] | None = None  # set on top of the base environment
    unset: Sequence[str] = ()
    stdin: bool = False  # True: a pipe; False: /dev/null


@dataclass(frozen=True, slots=True)
class Exit:
    """How a program ended, as observed by wait. Exactly one of `status` and `signal` is set."""

    status: int | None
    signal: int | None
    user_cpu: float = 0.0  # seconds
    system_cpu: float = 0.0  # seconds
    max_rss: int = 0  # bytes


@dataclass(frozen=True, slots=True)
class Running:
    """A program that was started; core owns the descriptors (non-blocking, close-on-exec)."""

    pid: int
    start_time: int  # clock ticks since boot (proc(5) field 22): pid + start time is unique
    stdin: int | None
    stdout: int
    stderr: int


class Upload(Protocol):
    """A file being replaced: bytes go to `fd`, a temporary file beside the target."""

    fd: int

    async def commit(self, *, mode: int | None = None, mtime_ns: int | None = None) -> FileStat:
        """fsync, keep the old file's mode unless `mode` is given, rename over the target, fsync
        the directory. The target is never seen half written."""
        ...

    async def abort(self) -> None:
        """Remove the temporary file. Harmless after `commit` and when called twice."""
        ...


class Hands(Protocol):
    """The half that acts."""

    form: str  # "in-process" or "socket"

    async def capabilities(self) -> Mapping[str, str | bool]:
        """What this kernel and identity allow: openat2, pidfd, uid, root (the path), ..."""
        ...

    async def open(self, path: Path, mode: OpenMode = OpenMode.READ) -> int:
        """A descriptor (close-on-exec) of a regular file for reading; the caller closes it."""
        ...

    async def replace(self, path: Path, *, parents: bool = False) -> Upload:
        """Begin an atomic write of `path`. With `parents`, missing directories are made."""
        ...

    async def stat(self, path: Path, *, follow: bool = False) -> FileStat: ...

    async def list(self, path: Path, *, after: bytes | None = None, limit: int = 1000) -> Listing:
        """One page of at most `limit` entries whose names sort after `after`."""
        ...

    async def mkdir(
        self, path: Path, *, parents: bool = False, exist_ok: bool = False, mode: int = 0o777
    ) -> None: ...

    async def rename(self, source: Path, target: Path, *, replace: bool = True) -> None:
        """Atomic (renameat2); with `replace=False` an existing target answers `exists`."""
        ...

    async def link(self, source: Path, target: Path) -> None: ...

    async def remove(self, path: Path, *, recursive: bool = False) -> int:
        """Remove a file, a link (not its target), or a directory; how many entries went."""
        ...

    async def chmod(self, path: Path, mode: int) -> None: ...

    async def utimes(self, path: Path, *, atime_ns: int, mtime_ns: int) -> None: ...

    async def spawn(self, program: Program, *, key: bytes) -> Running:
        """Start a program in a session of its own. `key` (the call id) names it from here on."""
        ...

    async def signal(self, key: bytes, number: int) -> None:
        """Send a signal to the program's process group; nothing happens once it was reaped."""
        ...

    async def kill(self, key: bytes, *, grace: float) -> None:
        """TERM to the group, KILL after `grace` seconds. Returns when the program was reaped
        and its group is gone, or 2 s after the KILL."""
        ...

    async def wait(self, key: bytes) -> Exit:
        """How the program ended. Any number of waiters, also after the end, until `forget`."""
        ...

    async def running(self) -> Sequence[tuple[bytes, int]]:
        """(key, pid) of each program that was started and not forgotten."""
        ...

    async def forget(self, key: bytes) -> None:
        """Drop what is kept of an ended program."""
        ...

    async def aclose(self) -> None:
        """Kill what still runs, reap it, release the root. Bounded: 5 s."""
        ...


def type_of(mode: int) -> FileType:
    """The `FileType` of a `st_mode`."""
    import stat

    kinds = {
        stat.S_IFREG: FileType.FILE,
        stat.S_IFDIR: FileType.DIRECTORY,
        stat.S_IFLNK: FileType.SYMLINK,
        stat.S_IFIFO: FileType.FIFO,
        stat.S_IFSOCK: FileType.SOCKET,
        stat.S_IFCHR: FileType.CHARACTER,
        stat.S_IFBLK: FileType.BLOCK,
    }
    return kinds.get(stat.S_IFMT(mode), FileType.UNKNOWN)


def stat_of(result: os.stat_result, target: bytes | None = None) -> FileStat:
    """An `os.stat_result` as a `FileStat`."""
    return FileStat(
        type=type_of(result.st_mode),
        size=result.st_size,
        mode=result.st_mode & 0o7777,
        mtime_ns=result.st_mtime_ns,
        inode=result.st_ino,
        device=result.st_dev,
        uid=result.st_uid,
        gid=result.st_gid,
        links=result.st_nlink,
        target=target,
    )
