"""The tool that reads a tar stream and makes what is in it, beneath one directory.

What is refused, entry by entry and with the reason: paths that are absolute, have a `..` or lead
through a link; devices and FIFOs; links that lead out; hard links to what is not beneath the
target; and what the system refuses for that entry alone. Owners are not taken over, nor set-user-id
and the like. The target itself keeps its mode and time.

What is wrong with the archive, or with the disk as a whole, ends the work; what was made stays.
`entries`, `bytes` and `refused_count` in the details of the error tell how far it came, `offset`
where in the archive (uncompressed) it makes no sense.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sidecar.errors import CallError, Code, Started, from_os_error, show_path
from sidecar.hands.fileinterface import Path
from sidecar.hands.local.beneath import through_proc
from sidecar.hands.local.paths import Paths
from sidecar.hands.local.refusals import Refusals, reason
from sidecar.hands.local.roots import Roots
from sidecar.hands.local.stop import Stop
from sidecar.hands.local.tar.planting import Ground, Kept, Refused, is_of_one, names_of
from sidecar.hands.local.tar.tarreading import (
    GZIP,
    BrokenTar,
    Found,
    Inflating,
    Input,
    Kind,
    TarReader,
)
from sidecar.hands.local.walk.descent import ENTER
from sidecar.hands.names import SELF


def extract(
    roots: Roots, path: Path, options: Mapping[str, Any], fd: int, stop: Stop
) -> dict[str, Any]:
    """`strip`, `links`, `existing`: see `FilesExtract`."""
    ground = _open_ground(roots, path, options)
    raw = _Raw(fd, stop)
    work = _Extraction(ground, options["strip"])
    try:
        try:
            work.run(TarReader(_input(raw)))
        finally:
            ground.settle()
        raw.drain()
    except (CallError, OSError, BrokenTar) as error:
        raise work.failure(error, path) from None
    finally:
        ground.close()
    return work.told() | {"kept": work.kept, "refused": work.refused.rows}


def _open_ground(roots: Roots, path: Path, options: Mapping[str, Any]) -> Ground:
    Paths(roots).mkdir(path, parents=True, exist_ok=True, mode=0o777)
    root = roots.of(path, write=True)
    with root.resolved(path) as found:
        real = os.readlink(through_proc(found).encode())
        depth = _depth(real, root.path) if options["links"] == "inside" else None
        return Ground(os.open(SELF, ENTER, dir_fd=found), options["existing"], depth=depth)


def _depth(path: bytes, root: bytes) -> int:
    """How many names lie between them; 0 where one was renamed in between."""
    inside = os.path.relpath(path, root)
    return 0 if inside.startswith(b".") else inside.count(b"/") + 1


@dataclass(slots=True)
class _Raw:
    """What comes through the pipe."""

    fd: int
    stop: Stop
    waiting: bytes = b""

    def read(self, size: int) -> bytes:
        """See `tarreading.Input`."""
        if self.waiting:
            found, self.waiting = self.waiting[:size], self.waiting[size:]
            return found
        return self.stop.read(self.fd, size)

    def look(self, size: int) -> bytes:
        """The first bytes, which stay to be read."""
        while len(self.waiting) < size and (data := self.stop.read(self.fd, size)):
            self.waiting += data
        return self.waiting

    def drain(self) -> None:
        """What follows the end of the archive: tapes had blocks of 10 KiB."""
        while self.stop.read(self.fd, 65536):
            pass


def _input(raw: _Raw) -> Input:
    return Inflating(raw) if raw.look(len(GZIP)).startswith(GZIP) else raw


class _Extraction:
    def __init__(self, ground: Ground, strip: int) -> None:
        self.entries = 0
        self.bytes = 0
        self.kept = 0
        self.refused = Refusals()
        self._ground = ground
        self._strip = strip
        self._at = b""  # the member at hand

    def run(self, reader: TarReader) -> None:
        for member in reader:
            self._at = member.name.rstrip(b"/") or member.name
            try:
                if self._make(member, reader):
                    self.entries += 1
                    self.bytes += member.size
            except Refused as refusal:
                self.refused.add(self._at, str(refusal))
            except Kept:
                self.kept += 1
            except OSError as error:
                if not is_of_one(error):
                    raise
                self.refused.add(self._at, reason(error))
            self._at = b""

    def _make(self, member: Found, reader: TarReader) -> bool:
        """False: it is nothing but the target, or above it."""
        names = names_of(member.name, self._strip)
        if not names:
            return False
        ground = self._ground
        match member.kind:
            case Kind.FILE:
                content = reader.content()
                ground.file(names, member.mode, member.mtime_ns, member.size, content)
            case Kind.DIRECTORY:
                ground.directory(names, member.mode, member.mtime_ns)
            case Kind.SYMLINK:
                ground.symlink(names, member.target, member.mtime_ns)
            case Kind.HARD_LINK:
                ground.hard_link(names, _source(member, self._strip))
            case _:
                raise Refused(f"it is a {member.kind.value}")
        return True

    def told(self) -> dict[str, Any]:
        counts = {"entries": self.entries, "bytes": self.bytes}
        return {**counts, "refused_count": self.refused.count}

    def failure(self, error: CallError | OSError | BrokenTar, path: Path) -> CallError:
        """`error` as the answer, which tells how far it came."""
        if isinstance(error, BrokenTar):
            message = f"the archive is broken at byte {error.offset}: {error}"
            found = CallError(Code.INVALID, message, offset=error.offset)
        elif isinstance(error, OSError):
            found = from_os_error(error, self._at or path)
        else:
            found = error
            if self._at:
                found.message = f"{show_path(self._at)}: {found.message}"
        found.started = Started.YES
        found.details |= self.told()
        if self._at:
            found.details["member"] = self._at
        return found


def _source(member: Found, strip: int) -> list[bytes]:
    try:
        return names_of(member.target, strip)
    except Refused:
        raise Refused("it is a hard link to what is not beneath the target") from None
