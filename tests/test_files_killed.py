"""`kill -9` of core, or of hands apart from it, while files are changed and read.

Whatever was under way, each file is the old one or the new one and whole; nothing lies about but
the parts of uploads, and whole new files that had their own name, and not yet their target's; the
call is told the truth, and what comes after works.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import tarfile
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from core import Core
from stack import Stack, open_stack, until

from sidecar.client import CallError, Code, Run, Started
from sidecar.client.editing import Replacement
from sidecar.protocol.streams import CONTENT
from sidecar.streaming.pushing import PushSource

pytestmark = pytest.mark.slow  # real processes, killed and started again

MB = 1_000_000
UPLOAD = b"u" * 16
LOST = {Code.OUTCOME_UNKNOWN, Code.HANDS_AWAY}  # of what changes files
BROKEN = {*LOST, Code.SOURCE_CHANGED, Code.ANSWER_GONE, Code.NOT_ACCEPTED}  # of what reads them


@dataclass
class Place:
    """A sidecar of one or two processes, and which of them is to be killed."""

    stack: Stack
    core: Core
    run: Run
    hands: subprocess.Popen[bytes] | None
    socket: Path
    victim: str
    told: list[Any] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.stack.workspace

    async def kill_and_start(self) -> None:
        if self.victim != "hands":
            await self.core.kill_and_start()
            return
        assert self.hands is not None
        self.hands.kill()
        await anyio.to_thread.run_sync(self.hands.wait)
        self.hands = await self.stack.start_hands_process(self.socket)

    async def killed(
        self,
        work: Callable[[], Awaitable[object]],
        halfway: Callable[[], bool],
        then: Callable[[], Awaitable[object]] | None = None,
    ) -> CallError | None:
        """Kill while `work` is under way, then do `then`; what the work was told in the end."""
        errors: list[CallError] = []

        async def carry_out() -> None:
            try:
                await work()
            except CallError as error:
                errors.append(error)

        with anyio.fail_after(40):
            async with anyio.create_task_group() as group:
                group.start_soon(carry_out)
                await until(halfway)
                await self.kill_and_start()
                if then is not None:
                    await then()
        await self.works_on()
        return errors[0] if errors else None

    async def works_on(self) -> None:
        with anyio.fail_after(20):
            while (await self.run.info())["hands"]["state"] != "connected":  # noqa: ASYNC110
                await anyio.sleep(0.01)
        await self.run.files.write("after", b"goes on")
        assert await self.run.files.read("after") == b"goes on"
        await self.run.files.remove("after")

    def feed(self, command: str, arguments: dict[str, Any]) -> Feed:
        return Feed(self.run, command, arguments)


class Feed:
    """A call whose stream is fed by hand."""

    def __init__(self, run: Run, command: str, arguments: dict[str, Any]) -> None:
        self._run = run
        self._call = (command, arguments)
        self.source = PushSource()

    async def carry_out(self) -> None:
        async with self._run.open(*self._call) as call:
            self._run.send(call, CONTENT, self.source)
            await call.wait()

    async def push(self, data: bytes) -> None:
        """It may have ended, and then nobody takes any more."""
        with anyio.move_on_after(5), suppress(anyio.BrokenResourceError):
            await self.source.push(data)
        self.source.end()

    def has_sent(self, size: int) -> Callable[[], bool]:
        return lambda: self.source._base > size


@pytest.fixture(params=["all", "core", "hands"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    """`all`: one process, which is both."""
    async with open_stack(tmp_path, sidecars=0) as stack:
        with tempfile.TemporaryDirectory(prefix="hands-") as folder:
            socket, hands = Path(folder) / "socket", None
            if request.param != "all":
                hands = await stack.start_hands_process(socket)
            core = Core(stack, None if hands is None else socket)
            run = await stack.attach()
            made = Place(stack, core, run, hands, socket, request.param)
            await made.works_on()
            yield made


def files_in(folder: Path, new: Mapping[str, bytes] | None = None) -> dict[str, bytes]:
    """What is there. A file that takes the place of another one has a name of its own for the
    moment between linkat(2) and rename(2): if the kill hit that, it stays, once, and whole, as
    in `new`."""
    found = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    parts = [name for name in found if name.endswith(".sidecar-part")]
    assert len(parts) <= (0 if new is None else 1), parts
    for part in parts:
        target = re.fullmatch(r"\.(.+)\.[0-9a-f]{12}\.sidecar-part", Path(part).name)
        assert target is not None, part
        assert new is not None
        assert found.pop(part) == new[target[1]]
    return found


async def test_a_write(place: Place) -> None:
    old, new = os.urandom(2 * MB), os.urandom(4 * MB)
    await place.run.files.write("data", old)
    feed = place.feed("files.write", {"path": "data", "size": len(new)})
    await feed.source.push(new[: 3 * MB])
    error = await place.killed(feed.carry_out, feed.has_sent(MB), lambda: feed.push(new[3 * MB :]))
    assert error is not None
    assert error.code in {*LOST, Code.SOURCE_CHANGED}
    assert files_in(place.folder) == {"data": old}


async def test_an_upload(place: Place) -> None:
    old, new = os.urandom(2 * MB), os.urandom(4 * MB)
    await place.run.files.write("data", old)
    feed = place.feed("files.write", {"path": "data", "size": len(new), "upload": UPLOAD})
    await feed.source.push(new[: 3 * MB])

    def part_has_some() -> bool:  # what was taken from us may be in core's memory only
        return any(part.stat().st_size >= MB for part in place.folder.glob(".*.sidecar-part"))

    error = await place.killed(feed.carry_out, part_has_some, lambda: feed.push(new[3 * MB :]))
    assert error is not None
    assert error.code is (Code.HANDS_AWAY if place.victim == "hands" else Code.INTERRUPTED)
    assert (place.folder / "data").read_bytes() == old
    arguments = {"path": "data", "upload": UPLOAD}
    there = (await place.run.call("files.upload", arguments))["size"]
    assert MB <= there <= len(new)
    [part] = place.folder.glob(".*.sidecar-part")
    assert part.read_bytes() == new[:there]
    rest = place.feed("files.write", {**arguments, "offset": there, "size": len(new)})
    await rest.push(new[there:])
    await rest.carry_out()
    assert files_in(place.folder) == {"data": new}


async def test_an_append(place: Place) -> None:
    """What is there of it is a beginning of it."""
    old, new = os.urandom(2 * MB), os.urandom(4 * MB)
    await place.run.files.write("data", old)
    feed = place.feed("files.append", {"path": "data"})
    await feed.source.push(new[: 3 * MB])
    error = await place.killed(feed.carry_out, feed.has_sent(MB), lambda: feed.push(new[3 * MB :]))
    [(name, found)] = files_in(place.folder).items()
    assert name == "data"
    assert (old + new).startswith(found)
    assert len(found) >= len(old)
    if place.victim == "hands":  # core has the file open, and needs nobody
        assert (error, found) == (None, old + new)
    else:
        assert error is not None
        assert error.code in {*LOST, Code.SOURCE_CHANGED}
        assert error.started is not Started.NO


@pytest.mark.parametrize("after", [0.0, 0.005, 0.02, 0.05, 0.1])
async def test_an_edit(place: Place, after: float) -> None:
    old = b"x" * (4 * MB) + b"old"
    new = old.replace(b"old", b"new")
    await place.run.files.write("data", old)
    at = anyio.current_time() + after
    error = await place.killed(
        lambda: place.run.files.edit("data", [Replacement(b"old", b"new")]),
        lambda: anyio.current_time() >= at,
    )
    found = files_in(place.folder, {"data": new})
    if error is None:
        assert found == {"data": new}
    else:
        assert error.code in BROKEN
        assert found == {"data": old} or (
            found == {"data": new} and error.started is not Started.NO
        )


async def test_an_extract(place: Place) -> None:
    contents = {f"file-{n:03}": os.urandom(20_000) for n in range(200)}
    (place.folder / "to").mkdir(parents=True)
    for name in contents:
        (place.folder / "to" / name).write_bytes(b"old")
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    data = tar.getvalue()
    feed = place.feed("files.extract", {"path": "to"})
    half = len(data) // 2
    await feed.source.push(data[:half])

    def is_halfway() -> bool:
        return (place.folder / "to" / "file-050").read_bytes() != b"old"

    error = await place.killed(feed.carry_out, is_halfway, lambda: feed.push(data[half:]))
    assert error is not None
    assert error.code in {*LOST, Code.SOURCE_CHANGED}
    assert error.started is not Started.NO
    found = files_in(place.folder / "to", contents)
    assert found.keys() == contents.keys()
    assert all(found[name] in (b"old", content) for name, content in contents.items())


async def test_a_copy_of_a_tree(place: Place) -> None:
    content = os.urandom(30_000)
    for n in range(2000):
        folder = place.folder / "from" / f"{n // 100:02}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{n:04}").write_bytes(content)

    error = await place.killed(
        lambda: place.run.files.copy("from", "to", recursive=True),
        (place.folder / "to" / "02").exists,
    )
    found = files_in(place.folder / "to")
    assert found.keys() <= files_in(place.folder / "from").keys()
    assert set(found.values()) == {content}
    if error is None:
        assert len(found) == 2000
    else:
        assert error.code in LOST
        assert error.started is not Started.NO
    copied = await place.run.files.copy("from", "to", recursive=True)
    assert (copied.skipped_count, len(files_in(place.folder / "to"))) == (0, 2000)


async def test_an_archive(place: Place) -> None:
    content = os.urandom(100_000)
    for n in range(300):
        (place.folder / f"{n:03}").write_bytes(content)
    got = bytearray()

    async def read() -> None:
        async with place.run.files.archive() as archive:
            async for chunk in archive:
                got.extend(chunk)
                await anyio.sleep(0.001)

    error = await place.killed(read, lambda: len(got) > 2 * MB)
    assert error is not None
    assert error.code in BROKEN
    got.clear()
    await read()
    with tarfile.open(fileobj=io.BytesIO(bytes(got))) as whole:
        assert len(whole.getnames()) == 300


async def test_a_watch(place: Place) -> None:
    """It goes on, and says that changes may have been missed."""
    seen: list[Any] = []

    async def watch() -> None:
        async with place.run.files.watch() as changes:
            opened.set()
            async for batch in changes:
                seen.append(batch)
                if "new" in repr(batch):
                    break

    async def change() -> None:
        await until(lambda: any(batch.lost for batch in seen))
        (place.folder / "new").write_bytes(b"content")

    opened = anyio.Event()
    assert await place.killed(watch, opened.is_set, change) is None
    assert seen[0].lost == "restarted"
