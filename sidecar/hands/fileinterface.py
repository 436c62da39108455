"""The file half of the `hands` interface: paths, parts of uploads, and work that takes long.

See `interface` for what holds of all of hands. Paths are `str | bytes`, relative to the workspace
or absolute below a root; bytes for names that are not UTF-8. Every path operation is confined:
nothing outside the roots is opened, made, renamed or removed, through symbolic links, `..` or
races; nothing is changed below a root that is read-only (`read_only`).

That is about names. A file of the workspace that has another name outside (a hard link) is one
file: what is read, appended and set by `chmod` and `utimes` is of both names, and only `replace`
leaves the other one as it is. With fs.protected_hardlinks (proc_sys_fs(5)), as everywhere by
default, nobody can make such a name of a file that they may not write anyway.
"""

from __future__ import annotations

import enum
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from sidecar.errors import CallError

Path = str | bytes
ENTRY_BYTES = 96  # of an entry without its names, as it travels, at the most


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
class Selection:
    """Which entries of a tree. What is in a directory that is left out is never looked at.

    `exclude`: patterns as in .gitignore, relative to the start. `ignore`: with `git`, what the
    .gitignore files of the tree leave out, and every `.git`. `globs`: only what one of them names.
    `depth`: how many levels of directories, 1 being the start itself.
    """

    exclude: Sequence[Path] = ()
    ignore: Literal["none", "git"] = "none"
    globs: Sequence[Path] = ()
    depth: int | None = None


ALL = Selection()


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a tree, by its path below the start, with its lstat; or, as `error`, why it
    could not be looked at (then there is no stat), or is a directory that cannot be entered."""

    path: bytes
    stat: FileStat | None
    error: CallError | None = None

    @property
    def weight(self) -> int:
        """About how many bytes it takes to tell of it."""
        target = self.stat.target if self.stat is not None else None
        error = 0 if self.error is None else ENTRY_BYTES + 2 * len(self.error.message)
        return ENTRY_BYTES + len(self.path) + len(target or b"") + error


@dataclass(frozen=True, slots=True)
class Listing:
    """One page of a tree, sorted by the names at each level, a directory before what is in it.
    `next`: what `after` has to be for the page that follows; None if this is the last."""

    entries: list[Entry]
    next: bytes | None = None


class OpenMode(enum.StrEnum):
    READ = "read"  # a regular file; a FIFO or device answers `unsupported` and never blocks


ABSENT = ""  # as `expect` of a commit: nothing may be there
PRESENT = "*"  # something must


class Upload(Protocol):
    """A file being replaced: bytes go to `fd`, its part."""

    @property
    def fd(self) -> int:
        """-1 once the upload has ended."""
        ...

    @property
    def size(self) -> int:
        """Bytes that an earlier call with the id of this upload left in the part."""
        ...

    async def commit(
        self, *, mode: int | None = None, mtime_ns: int | None = None, expect: str | None = None
    ) -> FileStat:
        """fsync, keep the old file's mode unless `mode` is given, rename over the target, fsync
        the directory. The target is never seen half written.

        `expect`: what must be there now, `ABSENT`, `PRESENT`, or the file that has this etag;
        otherwise `precondition_failed`. Commits of this hands to one target are one after the
        other, so that of two with the same etag one succeeds. It ends the upload, unless it
        raises `invalid` or `precondition_failed`.
        """
        ...

    async def abort(self) -> None:
        """End it without a commit: the part is removed, but kept if the upload has an id.
        Harmless after `commit` and when called twice."""
        ...


class ToolName(enum.StrEnum):
    """What hands does in a thread or child of its own, with a pipe to core."""

    ARCHIVE = "archive"  # core reads a tar stream
    EXTRACT = "extract"  # core writes a tar stream
    SEARCH = "search"  # core reads records
    WATCH = "watch"  # core reads records, until it closes
    COPY = "copy"  # nothing is written to its pipe


CORE_WRITES = frozenset({ToolName.EXTRACT})  # of all others core reads


class Tool(Protocol):
    """Work of hands that takes long. `fd` is core's end of a pipe, read by `Hands.pipe_io`."""

    fd: int  # non-blocking, close-on-exec; -1 once it was closed or taken

    def take_fd(self) -> int:
        """Core's end, which is the caller's to close from here on."""
        ...

    def close_fd(self) -> None:
        """Close core's end: of what is written, the end of it; of what is read, the wish for no
        more. A second call is harmless."""
        ...

    async def result(self) -> dict[str, Any]:
        """What it has to say at its end: plain values. Raises `CallError` if it failed. Waits for
        the end, so of a tool that writes more than a pipe holds, read that first."""
        ...

    async def aclose(self) -> None:
        """Stop it if it runs, and release all it has. Harmless when called twice."""
        ...


class FileHands(Protocol):
    """What hands does to paths."""

    async def open(self, path: Path, mode: OpenMode = OpenMode.READ) -> int:
        """A descriptor (close-on-exec) of a regular file for reading; the caller closes it."""
        ...

    async def append(
        self, path: Path, *, create: bool = True, parents: bool = False, mode: int | None = None
    ) -> int:
        """The same for writing at its end. With `create` a missing file is made, with the
        permissions `mode` (None: those that the umask leaves), with `parents` its directories."""
        ...

    async def replace(
        self, path: Path, *, parents: bool = False, upload: bytes | None = None
    ) -> Upload:
        """Begin an atomic write of `path`. With `parents`, missing directories are made.

        With `upload`, 16 bytes, the part bears that id and is gone on with if it is there. Only
        one at a time has it: `conflict`. What lies in its place and is not ours is `exists`.
        """
        ...

    async def part(self, path: Path, upload: bytes) -> FileStat | None:
        """The part of an upload; None: there is none."""
        ...

    async def discard(self, path: Path, upload: bytes, *, older_than: float = 0.0) -> bool:
        """Remove the part of an upload that nobody writes and that is unchanged for at least
        `older_than` seconds. Whether there is none any more."""
        ...

    async def stat(self, path: Path, *, follow: bool = False) -> FileStat: ...

    async def walk(
        self,
        path: Path,
        selection: Selection = ALL,
        *,
        after: bytes | None = None,
        limit: int = 1000,
    ) -> Listing:
        """One page of what is below the directory `path`: at most `limit` entries, and fewer where
        that takes long or many bytes (perhaps none, although others follow)."""
        ...

    async def mkdir(
        self, path: Path, *, parents: bool = False, exist_ok: bool = False, mode: int = 0o777
    ) -> None: ...

    async def rename(self, source: Path, target: Path, *, replace: bool = True) -> None:
        """Atomic (renameat2); with `replace=False` an existing target answers `exists`."""
        ...

    async def link(self, source: Path, target: Path) -> None:
        """`target` becomes a second name of the file, or of the symbolic link, `source`."""
        ...

    async def symlink(self, path: Path, text: Path, *, anywhere: bool = False) -> None:
        """Make a symbolic link that says `text`. One that would lead out of its root is `outside`,
        unless `anywhere`."""
        ...

    async def remove(self, path: Path, *, recursive: bool = False) -> int:
        """Remove a file, a link (not its target), or a directory; how many entries went."""
        ...

    async def chmod(self, path: Path, mode: int) -> None: ...

    async def utimes(self, path: Path, *, atime_ns: int, mtime_ns: int) -> None: ...

    async def tool(self, name: ToolName, path: Path, options: Mapping[str, Any]) -> Tool:
        """Begin work below `path`; `options` are plain values that the tool knows. It has begun
        when this returns, so what is wrong with them its result tells. `limit` for one too many.
        """
        ...


_TYPES = {
    stat.S_IFREG: FileType.FILE,
    stat.S_IFDIR: FileType.DIRECTORY,
    stat.S_IFLNK: FileType.SYMLINK,
    stat.S_IFIFO: FileType.FIFO,
    stat.S_IFSOCK: FileType.SOCKET,
    stat.S_IFCHR: FileType.CHARACTER,
    stat.S_IFBLK: FileType.BLOCK,
}


def type_of(mode: int) -> FileType:
    """The `FileType` of a `st_mode`."""
    return _TYPES.get(stat.S_IFMT(mode), FileType.UNKNOWN)


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
