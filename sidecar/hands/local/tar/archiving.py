"""The tool that writes a tree as a tar stream. No temporary file: what is read goes out.

- Regular files, directories, symbolic links (as they are), modes, times, owners as numbers. A file
  that has several names is there once, and its other names are links to it within the archive; of
  the first `MOST_LINKED` such files that is known, of later ones each name is a file.
- A header has the size of its file and cannot be taken back. So a file that grows is cut at the
  size that it had at first; of one that shrinks, or cannot be read to its end, the rest is zeros,
  and that is told.
- Sparse files: holes become zeros. Files of file systems that do not know sizes (procfs) are read
  whole before their header is written, `UNSIZED` bytes at the most.
- FIFOs, sockets, devices, and what cannot be read are left out, and told.

The order is that of `walking`. A name that was asked for is there even if the selection would
leave it out; what is below it is not.
"""

from __future__ import annotations

import errno
import os
import stat
import zlib
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from sidecar.errors import CallError, Invalid, show_path
from sidecar.hands.fileinterface import Path
from sidecar.hands.local.beneath import through_proc
from sidecar.hands.local.refusals import Refusals, reason
from sidecar.hands.local.roots import Roots
from sidecar.hands.local.stop import Stop
from sidecar.hands.local.tar import tarheaders
from sidecar.hands.local.tar.tarheaders import Member, header, padding
from sidecar.hands.local.walk.walking import Selection, Walked, walk
from sidecar.hands.names import SELF, UP, as_bytes, split

MOST_LINKED = 65_536  # files with several names that are remembered: some 200 bytes each
UNSIZED = 4 * 1024 * 1024  # bytes of a file whose size its file system does not know
PIECE = 256 * 1024  # bytes of one read, and gathered for one write
LEVEL = 1  # of gzip: text becomes a quarter, at more than any channel carries

_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class _Start:
    """A subtree of an archive: where it is, and what its members' names begin with."""

    path: Path
    prefix: bytes


def archive(
    roots: Roots, path: Path, options: Mapping[str, Any], fd: int, stop: Stop
) -> dict[str, Any]:
    """`paths` (None: all), `exclude`, `ignore`, `compress`: see `FilesArchive`."""
    selection = Selection(exclude=options["exclude"], ignore=options["ignore"])
    output = _Output(fd, stop, compress=options["compress"] == "gzip")
    writer = _Writer(output, stop)
    if options["paths"] is None:
        writer.tree(walk(roots, path, selection, check=lambda last: stop.check()), b"")
    else:
        for start in _starts(roots, path, options["paths"]):
            _add_start(roots, start, selection, writer)
    output.write(tarheaders.END)
    output.end()
    return {
        "entries": writer.entries,
        "bytes": writer.bytes,
        "skipped": writer.skipped.rows,
        "skipped_count": writer.skipped.count,
    }


def _starts(roots: Roots, path: Path, paths: Sequence[Path]) -> list[_Start]:
    """Each name once, and none below another. All of them must be there before the first byte."""
    names = {tuple(_names(below)): below for below in paths}
    found = []
    for key, below in names.items():
        if any(key[:length] in names for length in range(len(key))):
            continue
        start = _Start(_joined(path, key), b"/".join(key))
        try:
            os.close(roots.resolve(start.path, follow=False))
        except CallError as error:
            raise CallError(
                error.code, f"{show_path(below)}: {error.message}", path=below
            ) from None
        found.append(start)
    return found


def _names(path: Path) -> list[bytes]:
    encoded = as_bytes(path, "path")
    if encoded.startswith(b"/") or UP in (names := split(encoded)):
        raise Invalid(f"{show_path(path)}: a path below the one that is archived is expected")
    return [name for name in names if name != SELF]


def _joined(path: Path, names: Sequence[bytes]) -> bytes:
    return b"/".join((as_bytes(path, "path") or SELF, *names))


def _add_start(roots: Roots, start: _Start, selection: Selection, writer: _Writer) -> None:
    if not start.prefix:
        writer.tree(walk(roots, start.path, selection, check=lambda last: writer.stop.check()), b"")
        return
    with roots.parent(start.path, write=False) as place:
        try:
            found = place.lstat()
        except FileNotFoundError as error:  # it was there a moment ago
            writer.skipped.add(start.prefix, reason(error))
            return
        writer.add(Walked(start.prefix, place.name, place.directory, found), start.prefix)
    if stat.S_ISDIR(found.st_mode):
        entries = walk(roots, start.path, selection, check=lambda last: writer.stop.check())
        writer.tree(entries, start.prefix + b"/")


class _Output:
    """The pipe, with small writes gathered, and perhaps compressed."""

    def __init__(self, fd: int, stop: Stop, *, compress: bool) -> None:
        self._fd = fd
        self._stop = stop
        self._gathered = bytearray()
        self._deflate = zlib.compressobj(LEVEL, wbits=31) if compress else None  # 31: gzip

    def write(self, data: bytes) -> None:
        self._gathered += data
        if len(self._gathered) >= PIECE:
            self._flush()

    def end(self) -> None:
        self._flush()
        if self._deflate is not None:
            self._stop.write(self._fd, self._deflate.flush())

    def _flush(self) -> None:
        data, self._gathered = self._gathered, bytearray()
        if self._deflate is not None:
            self._stop.write(self._fd, self._deflate.compress(data))
        else:
            self._stop.write(self._fd, data)


class _Writer:
    def __init__(self, output: _Output, stop: Stop) -> None:
        self.stop = stop
        self.entries = 0
        self.bytes = 0
        self.skipped = Refusals()
        self._output = output
        self._linked: dict[tuple[int, int], bytes] = {}  # name of what has several, by identity

    def tree(self, entries: Generator[Walked, None, None], prefix: bytes) -> None:
        with closing(entries):
            for entry in entries:
                self.add(entry, prefix + entry.path)

    def add(self, entry: Walked, name: bytes) -> None:
        """One entry, without what is below it. What is wrong with it is told."""
        self.stop.check()
        if entry.error is not None:
            self.skipped.add(name, reason(entry.error))
        if entry.stat is None:
            return
        try:
            self._add(entry, entry.stat, name)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):  # says nothing about the entry
                raise
            self.skipped.add(name, reason(error))

    def _add(self, entry: Walked, found: os.stat_result, name: bytes) -> None:
        if stat.S_ISREG(found.st_mode):
            self._add_file(entry, name)
        elif stat.S_ISDIR(found.st_mode):
            self._put(_member(name + b"/", tarheaders.DIRECTORY, found))
        elif stat.S_ISLNK(found.st_mode):
            target = os.readlink(entry.name, dir_fd=entry.directory)
            self._put(_member(name, tarheaders.SYMLINK, found, target=target))
        else:
            self.skipped.add(name, _what_it_is(found.st_mode))

    def _add_file(self, entry: Walked, name: bytes) -> None:
        with _opened(entry) as file:
            found = os.fstat(file.fd)
            if not stat.S_ISREG(found.st_mode):
                self.skipped.add(name, _what_it_is(found.st_mode))
                return
            if found.st_nlink > 1 and self._add_link(found, name):
                return
            file.open()
            size = found.st_size
            content = file.read(min(size, PIECE)) if size else file.read_all(UNSIZED + 1)
            if not size and len(content) > UNSIZED:
                self.skipped.add(name, f"it has no size, and more than {UNSIZED} bytes")
                return
            size = size or len(content)
            self._put(_member(name, tarheaders.FILE, found, size=size))
            self._put_content(file, content, size, name)

    def _add_link(self, found: os.stat_result, name: bytes) -> bool:
        """Whether the file is in the archive already; else its name is remembered."""
        identity = found.st_dev, found.st_ino
        known = self._linked.get(identity)
        if known is not None:
            self._put(_member(name, tarheaders.HARD_LINK, found, target=known))
            return True
        if len(self._linked) < MOST_LINKED:
            self._linked[identity] = name
        return False

    def _put(self, member: Member) -> None:
        self._output.write(header(member))
        self.entries += 1

    def _put_content(self, file: _File, content: bytes, size: int, name: bytes) -> None:
        """Exactly `size` bytes, whatever becomes of the file meanwhile."""
        left, why = size, ""
        while content:
            self._output.write(content)
            left -= len(content)
            if not left:
                break
            try:
                content = file.read(min(left, PIECE))
            except OSError as error:
                why, content = reason(error), b""
        self.bytes += size - left
        if left:
            why = why or "it became shorter"
            self.skipped.add(name, f"{why}: zeros stand for its last {left} bytes")
        while left:
            self.stop.check()
            zeros = min(left, PIECE)
            self._output.write(bytes(zeros))
            left -= zeros
        self._output.write(padding(size))


class _File:
    """A file that is looked at before it is opened: nothing else ever is."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    def open(self) -> None:
        """For reading: exactly what was looked at."""
        opened = os.open(through_proc(self.fd), _READ)
        os.close(self.fd)
        self.fd = opened

    def read(self, size: int) -> bytes:
        return os.read(self.fd, size)

    def read_all(self, most: int) -> bytes:
        """As many as there are: what has no size gives little at once."""
        parts = []
        while most and (data := os.read(self.fd, most)):
            parts.append(data)
            most -= len(data)
        return b"".join(parts)


def _opened(entry: Walked) -> _File:
    return _File(os.open(entry.name, _LOOK, dir_fd=entry.directory))


def _member(
    name: bytes, kind: bytes, found: os.stat_result, *, size: int = 0, target: bytes = b""
) -> Member:
    mode = stat.S_IMODE(found.st_mode)
    return Member(name, kind, mode, found.st_uid, found.st_gid, found.st_mtime_ns, size, target)


def _what_it_is(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "a FIFO"
    if stat.S_ISSOCK(mode):
        return "a socket"
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        return "a device"
    return "another kind of file by now"
