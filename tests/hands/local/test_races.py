"""Everything that hands does to paths, while all of a tree is swapped as fast as it goes.

Outside of the root lies a canary: nothing of it is read, listed, changed, made or removed. What
was read shows in the access times, where the disk keeps them. Each operation ends, with an answer
or with an error that has a code, and no part of a file stays behind.
"""

from __future__ import annotations

import itertools
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from swapper import PLACES, plant, swapping

from sidecar.errors import CallError, Code
from sidecar.hands.fileinterface import (
    CORE_WRITES,
    PRESENT,
    Selection,
    ToolName,
)
from sidecar.hands.interface import Hands
from sidecar.hands.local.search import ripgrep, searching
from sidecar.hands.names import PART_SUFFIX

SECRET = b"canary"
LONG_AGO = 10**18  # ns; an access time that any reading renews (relatime, mount(8))
HAS_RIPGREP = ripgrep.find() is not None
HANGS = 20.0  # seconds after which an operation does
UPLOAD = b"upload of a race"
SEARCH = {
    **{"pattern": "canary|needle", "fixed": False, "ignore_case": False, "globs": []},
    **{"exclude": [], "ignore": "git", "before": 1, "after": 1, "limit": 1000, "line_bytes": 512},
}
WATCH = {"recursive": True, "exclude": [], "ignore": "git", "gather": 0.0}
ARCHIVE: dict[str, Any] = {"paths": None, "exclude": [], "ignore": "none", "compress": "none"}
EXTRACT = {"strip": 0, "links": "all", "existing": "replace"}


class Canary:
    """A tree outside of the root that nobody may touch."""

    def __init__(self, top: Path) -> None:
        self.top = top
        top.mkdir()
        plant(top, b"needle of the canary\n" * 50)
        (top / "canary-of-the-top").write_bytes(SECRET)
        self._paths = [top, *sorted(top.rglob("*"))]
        self._beside = sorted(os.listdir(top.parent))
        self.reading_shows = self._renew()
        self._before = self._look()

    @property
    def inodes(self) -> set[tuple[int, int]]:
        return {(row[0], row[1]) for row in self._before}

    def check(self, *, was_read: bool = False) -> None:
        """It is what it was. `was_read`: somebody was allowed to read it."""
        if self.reading_shows and not was_read:
            assert {os.lstat(path).st_atime_ns for path in self._paths} == {LONG_AGO}
        assert self._look() == self._before
        assert [self.top, *sorted(self.top.rglob("*"))] == self._paths
        assert sorted(os.listdir(self.top.parent)) == self._beside
        for path in self._paths:
            if path.is_file() and path.name != "canary-of-the-top":
                assert path.read_bytes() == b"needle of the canary\n" * 50

    def _renew(self) -> bool:
        """Set the access times; whether reading changes them."""
        probe = self.top / "canary-of-the-top"
        os.utime(probe, ns=(LONG_AGO, LONG_AGO))
        probe.read_bytes()
        shows = os.lstat(probe).st_atime_ns != LONG_AGO
        for path in reversed(self._paths):
            os.utime(path, ns=(LONG_AGO, os.lstat(path).st_mtime_ns))
        return shows

    def _look(self) -> list[tuple[int, ...]]:
        found: list[tuple[int, ...]] = []
        for path in self._paths:
            at = os.lstat(path)
            found.append(
                (at.st_dev, at.st_ino, at.st_mode, at.st_nlink, at.st_uid, at.st_gid)
                + (at.st_size, at.st_mtime_ns)
            )
        return found


@pytest.fixture
def canary(root: Path) -> Canary:
    plant(root, b"needle of the inside\n" * 50)
    return Canary(root.parent / "elsewhere")  # links may say that


@dataclass
class Operations:
    """Each is called again and again; what it sees it gives to `show`."""

    hands: Hands
    canary: Canary
    places: Iterator[str]

    def show(self, seen: bytes) -> None:
        assert SECRET not in seen

    def all(self) -> Mapping[str, Callable[[], Awaitable[object]]]:
        return {
            "read": self.read,
            "write": self.write,
            "write if it is there": lambda: self.write(expect=PRESENT),
            "upload": lambda: self.write(upload=UPLOAD),
            "discard": lambda: self.hands.discard(self.place(), UPLOAD),
            "append": self.append,
            "stat": self.stat,
            "list": self.list,
            "glob": lambda: self.list(Selection(globs=["**/file"], ignore="git")),
            "mkdir": lambda: self.hands.mkdir(self.place() + "/x/y", parents=True, exist_ok=True),
            "move": self.move,
            "link": lambda: self.hands.link(self.place(), self.place() + f"-{next(self.places)}"),
            "symlink": self.symlink,
            "chmod": lambda: self.hands.chmod(self.place(), 0o755),
            "utimes": lambda: self.hands.utimes(self.place(), atime_ns=1, mtime_ns=1),
            "remove": self.remove,
            "copy": self.copy,
            "copy a tree": lambda: self.copy("a", "copy"),
            "copy back": lambda: self.copy("pool/1", "a/b"),
            "search": lambda: self.tool(ToolName.SEARCH, next(self.starts), SEARCH),
            "archive": lambda: self.tool(ToolName.ARCHIVE, next(self.starts), ARCHIVE),
            "extract": self.extract,
            "watch": self.watch,
        }

    def __post_init__(self) -> None:
        self.starts = itertools.cycle(["", "a", "a/b", "a/b/file"])
        self._archive = b""

    def place(self) -> str:
        return next(self.places)

    async def read(self) -> None:
        await self._take(await self.hands.open(self.place()))

    async def _take(self, fd: int) -> None:
        try:
            assert os.fstat(fd).st_size < 10**6
            found = os.fstat(fd)
            assert (found.st_dev, found.st_ino) not in self.canary.inodes
            self.show(await anyio.to_thread.run_sync(os.pread, fd, 65536, 0))
        finally:
            os.close(fd)

    async def write(self, *, expect: str | None = None, upload: bytes | None = None) -> None:
        begun = await self.hands.replace(self.place(), parents=True, upload=upload)
        try:
            found = os.fstat(begun.fd)
            assert (found.st_dev, found.st_ino) not in self.canary.inodes
            await anyio.to_thread.run_sync(os.write, begun.fd, b"needle\n")
            await begun.commit(expect=expect)
        finally:
            await begun.abort()

    async def append(self) -> None:
        fd = await self.hands.append(self.place(), parents=True)
        try:
            found = os.fstat(fd)
            assert (found.st_dev, found.st_ino) not in self.canary.inodes
            if found.st_size < 10_000:
                await anyio.to_thread.run_sync(os.write, fd, b"needle\n")
        finally:
            os.close(fd)

    async def stat(self) -> None:
        for follow in (False, True):
            found = await self.hands.stat(self.place(), follow=follow)
            assert (found.device, found.inode) not in self.canary.inodes

    async def list(self, selection: Selection = Selection()) -> None:  # noqa: B008 (a constant)
        found = await self.hands.walk(next(self.starts), selection)
        for entry in found.entries:
            self.show(entry.path)
            if entry.stat is not None:
                assert (entry.stat.device, entry.stat.inode) not in self.canary.inodes

    async def move(self) -> None:
        await self.hands.rename(self.place(), self.place(), replace=next(self.starts) == "")

    async def symlink(self) -> None:
        await self.hands.symlink(self.place() + "/link", "../file")

    async def remove(self) -> None:
        await self.hands.remove(next(self.starts) or "copy", recursive=True)

    async def copy(self, source: str | None = None, target: str | None = None) -> None:
        options = {"target": target or self.place(), "recursive": True, "replace": True}
        await self.tool(ToolName.COPY, source or self.place(), options)

    async def extract(self) -> None:
        archive = self._archive
        await self.tool(ToolName.EXTRACT, next(self.starts), EXTRACT, archive)

    async def watch(self) -> None:
        with anyio.move_on_after(1):  # it may be of what is gone, and then nothing comes
            await self.tool(ToolName.WATCH, next(self.starts), WATCH, least=5000)

    async def tool(
        self,
        name: ToolName,
        path: str,
        options: Mapping[str, Any],
        data: bytes = b"",
        *,
        least: int | None = None,
    ) -> None:
        """`least`: of what it writes so much is read, and then it is ended."""
        tool = await self.hands.tool(name, path, options)
        try:
            said = bytearray()
            if name in CORE_WRITES:
                await self._feed(tool.fd, data)
                tool.close_fd()
            else:
                while piece := await self._next(tool.fd):
                    said += piece
                    if least is not None and len(said) > least:
                        return
            result = await tool.result()
            self.show(bytes(said) + repr(result).encode())
            if name is ToolName.ARCHIVE:
                self._archive = bytes(said)
        finally:
            await tool.aclose()

    async def _next(self, fd: int) -> bytes:
        while True:
            try:
                return self.hands.pipe_io.read(fd, 65536)
            except BlockingIOError:
                await anyio.wait_readable(fd)

    async def _feed(self, fd: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self.hands.pipe_io.write(fd, view) :]
            except BlockingIOError:
                await anyio.wait_writable(fd)
            except BrokenPipeError:
                return


@asynccontextmanager
async def swapped(root: Path, canary: Canary, seed: int, *places: str) -> AsyncIterator[None]:
    """The tree is, in the block."""
    swapper = swapping(root, canary.top, seed, *places)
    await anyio.to_thread.run_sync(swapper.__enter__)
    try:
        yield
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(swapper.__exit__, None, None, None)


async def race(operations: Operations, names: list[str], seconds: float) -> Counter[str]:
    """How often each of the operations ended well, and how often with which code."""
    ends: Counter[str] = Counter()
    deadline = time.monotonic() + seconds

    async def repeat(name: str, operation: Callable[[], Awaitable[object]]) -> None:
        while time.monotonic() < deadline:
            try:
                with anyio.fail_after(HANGS):
                    await operation()
                ends[name] += 1
            except CallError as error:
                assert error.code not in (Code.INTERNAL, Code.HANDS_AWAY), error
                ends[str(error.code)] += 1

    known = operations.all()
    async with anyio.create_task_group() as group:
        for name in names:
            group.start_soon(repeat, name, known[name])
    return ends


def parts(root: Path) -> list[str]:
    """Those that nobody asked to be kept."""
    found = []
    for _, folders, files in os.walk(root):
        names = [name for name in (*folders, *files) if name.endswith(os.fsdecode(PART_SUFFIX))]
        found += [name for name in names if UPLOAD.hex() not in name]
    return found


@pytest.fixture
def operations(any_hands: Hands, canary: Canary) -> Operations:
    return Operations(any_hands, canary, itertools.cycle([*PLACES, "copy/b/file", "pool/1/file"]))


LENGTHS = [
    pytest.param(0.5, id="short"),
    pytest.param(4.0, id="long", marks=[pytest.mark.slow, pytest.mark.timeout(120)]),
]


@pytest.mark.parametrize("seconds", LENGTHS)
async def test_nothing_gets_out_of_a_tree_that_is_swapped_all_the_time(
    operations: Operations,
    canary: Canary,
    root: Path,
    seconds: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ripgrep, "find", lambda: None)
    async with swapped(root, canary, seed=1):
        ends = await race(operations, list(operations.all()), seconds)
    await anyio.to_thread.run_sync(canary.check)
    assert await anyio.to_thread.run_sync(parts, root) == []
    assert ends[Code.OUTSIDE]  # it was tempted
    if seconds > 10:
        assert not [name for name in operations.all() if not ends[name]]


@pytest.mark.parametrize("seconds", LENGTHS)
async def test_of_what_ripgrep_meets_outside_nothing_is_shown(
    operations: Operations,
    canary: Canary,
    root: Path,
    seconds: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is the one that may be led there, and changes nothing wherever it is."""
    if not HAS_RIPGREP:
        pytest.skip("there is no ripgrep")
    monkeypatch.setattr(searching, "PATIENCE", 0.1)  # it meets a FIFO now and then
    async with swapped(root, canary, seed=2):
        ends = await race(operations, ["search", "write", "mkdir"], seconds)
    await anyio.to_thread.run_sync(partial(canary.check, was_read=True))
    assert ends["search"]


HOT = [
    *(["archive"], ["copy a tree"], ["list"], ["read"], ["append"], ["chmod"], ["extract"]),
    *(["search"], ["remove", "mkdir"]),
]


@pytest.mark.parametrize("place", ["a/b", "a/file"])
@pytest.mark.parametrize("seconds", [pytest.param(0.5, id="short"), LENGTHS[1]])
async def test_nothing_gets_out_at_a_place_that_is_a_link_every_other_moment(
    operations: Operations,
    canary: Canary,
    root: Path,
    seconds: float,
    place: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ripgrep, "find", lambda: None)
    operations.starts = itertools.cycle(["a"])
    ends: Counter[str] = Counter()
    async with swapped(root, canary, 3, place):
        for names in HOT:  # one at a time: the less waits for another, the more often it is met
            ends += await race(operations, names, seconds / len(HOT))
    await anyio.to_thread.run_sync(canary.check)
    assert ends["list"]
