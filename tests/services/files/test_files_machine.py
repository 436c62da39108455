"""`files.*` against the real file system, and a model of it in plain Python (`treemodel`).

The service, the client, the hub and the hands are the real ones; what is done is drawn by
hypothesis, also by somebody who changes files without asking us. After each step the tree on disk
is the model's, byte for byte, with nothing else in it; what was refused has the code that the
model says, and changed nothing; and lists, globs and digests tell what is there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from servedhands import reach
from stack import open_stack
from treemodel import Tree
from treenodes import Fifo, File, Folder, Link, Node, Refused, below, digest, rows_on_disk

from sidecar.client import CallError, Run
from sidecar.client.editing import Replacement
from sidecar.client.listing import FileEntry
from sidecar.hands.local.hands import LocalHands
from sidecar.hands.names import is_part
from sidecar.protocol.streams import CONTENT
from sidecar.streaming import BytesSource

NAMES = [b"a", b"b", b".c", b"\xff\xfe", b"new\nline", "ü".encode() + b"x" * 253]
LARGE = bytes(range(256)) * 400  # does not ride in a call
IDS = [b"1" * 16, b"2" * 16]

names = st.sampled_from(NAMES)
plain_paths = st.one_of(
    names,
    st.tuples(st.sampled_from(NAMES[:3]), names).map(b"/".join),
    st.lists(names, min_size=1, max_size=3).map(b"/".join),
)
paths = st.one_of(
    plain_paths,
    plain_paths,
    st.tuples(plain_paths, st.sampled_from([b"/", b"/.", b"/.."])).map(b"".join),
    st.tuples(st.sampled_from([b"./", b"../", b"a/../", b"b//"]), plain_paths).map(b"".join),
)
texts = st.one_of(plain_paths, paths, st.sampled_from([b"/a", b"../a", b"../../a", b".", b".."]))
contents = st.sampled_from([b"", b"the one of somebody", b"two two", b"one\ntwo\n", LARGE])
file_modes = st.sampled_from([0o600, 0o644, 0o755, 0o4711])
folder_modes = st.sampled_from([0o700, 0o755, 0o1777])
flags = st.booleans()


@dataclass
class World:
    """What all examples have in common: a run, and the workspace that it changes."""

    portal: BlockingPortal
    run: Run
    workspace: bytes
    umask: int


@asynccontextmanager
async def opened(folder: Path, *, apart: bool) -> AsyncIterator[tuple[Run, bytes]]:
    async with open_stack(folder) as stack:
        if apart:
            exits = stack._exits
            local = await exits.enter_async_context(LocalHands.open_root(str(stack.workspace)))
            hands = await exits.enter_async_context(reach(local, folder / "socket"))
            stack.sidecar.means.hands = hands
            stack.sidecar.means.uploads._hands = hands
        yield await stack.attach(), os.fsencode(stack.workspace)


@contextmanager
def world(folder: Path, *, apart: bool) -> Iterator[World]:
    umask = os.umask(0o022)
    os.umask(umask)
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(opened(folder, apart=apart)) as (run, workspace),
    ):
        yield World(portal, run, workspace, umask)


class Machine(RuleBasedStateMachine):
    """One workspace, with a few entries at first."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.files = world.run.files
        self.tree = Tree(world.umask)
        for name in os.listdir(world.workspace):
            wipe(os.path.join(world.workspace, name))
        self.begin()

    def begin(self) -> None:
        """`a` and `b/a` are files, `b/b` is an empty folder, `.c` leads to `b`."""
        top, entries = self.world.workspace, self.tree.root.entries
        entries[b"a"] = make(os.path.join(top, b"a"), "file")
        entries[b"b"] = folder = make(os.path.join(top, b"b"), "folder")
        assert isinstance(folder, Folder)
        for name, kind in ((b"a", "file"), (b"b", "folder")):
            folder.entries[name] = make(os.path.join(top, b"b", name), kind)
        os.symlink(b"b", os.path.join(top, b".c"))
        entries[b".c"] = Link(b"b")

    def do(self, model: Callable[[], object], call: Callable[[], Awaitable[object]]) -> None:
        """The same in both; then both are compared."""
        expected, told = None, None
        try:
            model()
        except Refused as refused:
            expected = refused.code
        try:
            self.wait(call)
        except CallError as error:
            told = error
        code = None if told is None else told.code
        assert code == expected, f"{told or 'it was done'}; expected: {expected or 'success'}"
        self.compare()

    def wait(self, call: Callable[[], Awaitable[Any]]) -> Any:
        async def bounded() -> Any:
            with anyio.fail_after(20):
                return await call()

        return self.world.portal.call(bounded)

    def compare(self) -> None:
        expected = self.tree.rows()
        assert rows_on_disk(self.world.workspace) == expected
        seen = {path: row for path, row in expected.items() if not is_part(path.split(b"/")[-1])}
        listed, hashed, globbed = self.wait(partial(self.look, list(seen)))
        in_order = sorted(seen, key=lambda path: path.split(b"/"))
        assert [as_bytes(entry.name) for entry in listed] == in_order
        for entry in listed:
            kind, mode, content = seen[as_bytes(entry.name)]
            assert (str(entry.type), entry.mode) == (kind, mode)
            if kind == "symlink":
                assert entry.target is not None
                assert as_bytes(entry.target) == content
        for path, entry in zip(seen, hashed, strict=True):
            kind, _, content = seen[path]
            assert entry.error is None
            assert entry.sha256 == (digest(content) if kind == "file" else None)
        wanted = [path for path in in_order if path.split(b"/")[-1] == NAMES[0]]
        assert [as_bytes(entry.name) for entry in globbed] == wanted

    async def look(self, all: list[bytes]) -> tuple[Any, Any, list[FileEntry]]:
        return (
            await self.files.list(recursive=True),
            await self.files.stat_many(all, hash=True) if all else [],
            await self.files.glob(b"**/" + NAMES[0], ignore="none"),
        )

    # contents ---------------------------------------------------------------------------------

    @rule(path=paths, content=contents, mode=st.none() | file_modes, parents=flags)
    def write(self, path: bytes, content: bytes, mode: int | None, parents: bool) -> None:
        options: dict[str, Any] = {"mode": mode, "parents": parents}
        self.both("write", path, content, **options)

    @rule(path=paths, parents=flags)
    def write_what_is_broken_on_the_way(self, path: bytes, parents: bool) -> None:
        self.both("write", path, b"sent", parents=parents, sha256=digest(b"received"))

    @rule(path=paths, content=contents, known=contents)
    def write_on_condition(self, path: bytes, content: bytes, known: bytes) -> None:
        """`known`: what the caller thinks is there."""
        self.both("write", path, content, if_match=digest(known))
        self.both("write", path, known, if_none_match=digest(known))

    @rule(path=paths, content=contents)
    def write_what_is_there_and_what_is_not(self, path: bytes, content: bytes) -> None:
        self.both("write", path, content, if_match="*")
        self.both("write", path, content, if_none_match="*")

    @rule(path=paths, id=st.sampled_from(IDS), more=contents, at=st.integers(0, 2), parents=flags)
    def upload(self, path: bytes, id: bytes, more: bytes, at: int, parents: bool) -> None:
        """From the beginning, from where the part ends, or from beyond it; some of it only."""
        self.send(path, id, more, at, missing=1, parents=parents)

    @rule(path=paths, id=st.sampled_from(IDS), more=contents, at=st.integers(0, 2))
    def finish(self, path: bytes, id: bytes, more: bytes, at: int) -> None:
        self.send(path, id, more, at, missing=0, parents=False)

    @rule(path=paths, id=st.sampled_from(IDS), more=contents)
    def upload_in_two_calls(self, path: bytes, id: bytes, more: bytes) -> None:
        self.send(path, id, b"first ", 0, missing=len(more), parents=False)
        self.send(path, id, more, 1, missing=0, parents=False)

    def send(
        self, path: bytes, id: bytes, more: bytes, at: int, *, missing: int, parents: bool
    ) -> None:
        try:
            there = self.tree.part(path, id)
        except Refused:
            there = 0
        offset = (0, there, there + 1)[at]
        arguments = {"path": path, "upload": id, "offset": offset, "parents": parents}
        size = offset + len(more) + missing

        async def call() -> None:
            async with self.world.run.open("files.write", {**arguments, "size": size}) as call:
                self.world.run.send(call, CONTENT, BytesSource(more))
                await call.wait()

        model = partial(self.tree.upload, path, id, offset, more, missing=missing, parents=parents)
        self.do(model, call)
        arguments = {"path": path, "upload": id}
        self.do(partial(self.tree.part, path, id), self.command("files.upload", arguments))

    @rule(path=paths, id=st.sampled_from(IDS))
    def discard(self, path: bytes, id: bytes) -> None:
        arguments = {"path": path, "upload": id, "discard": True}
        self.do(partial(self.tree.discard, path, id), self.command("files.upload", arguments))

    @rule(path=paths, more=contents, create=flags, parents=flags, size=st.none() | st.just(3))
    def append(
        self, path: bytes, more: bytes, create: bool, parents: bool, size: int | None
    ) -> None:
        options: dict[str, Any] = {"create": create, "parents": parents}
        known = {} if size is None else {"size": size}
        call = partial(self.files.append, path, more, **options, **known)  # type: ignore[arg-type]
        self.do(partial(self.tree.append, path, more, size=size, **options), call)

    @rule(path=paths, old=st.sampled_from([b"one", b"two", b"\xff"]), known=st.none() | contents)
    def edit(self, path: bytes, old: bytes, known: bytes | None) -> None:
        match = None if known is None else digest(known)
        call = partial(self.files.edit, path, [Replacement(old, b"three")], if_match=match)
        self.do(partial(self.tree.edit, path, old, b"three", match), call)

    @rule(path=paths)
    def read(self, path: bytes) -> None:
        def model() -> None:
            content.append(self.tree.file(path).content)

        async def call() -> None:
            content.append(await self.files.read(path))

        content: list[bytes] = []
        self.do(model, call)
        assert content[:1] == content[1:]

    # names ------------------------------------------------------------------------------------

    @rule(source=paths, to=paths, recursive=flags, replace=flags)
    def copy(self, source: bytes, to: bytes, recursive: bool, replace: bool) -> None:
        if recursive and self.is_above(to, source):
            return  # what is copied changes what is still to be read
        self.both("copy", source, to, recursive=recursive, replace=replace)

    def is_above(self, target: bytes, source: bytes) -> bool:
        try:
            found = self.tree.place(target).find()
            return found in self.tree.way(source)[:-1]
        except Refused:
            return False

    @rule(source=paths, to=paths, replace=flags)
    def move(self, source: bytes, to: bytes, replace: bool) -> None:
        self.both("move", source, to, replace=replace)

    @rule(path=paths, parents=flags, exist_ok=flags, mode=folder_modes)
    def mkdir(self, path: bytes, parents: bool, exist_ok: bool, mode: int) -> None:
        arguments = {"parents": parents, "exist_ok": exist_ok, "mode": mode}
        call = self.command("files.mkdir", {"path": path, **arguments})
        self.do(partial(self.tree.mkdir, path, **arguments), call)  # type: ignore[arg-type]

    @rule(path=paths, text=texts, anywhere=flags)
    def link_softly(self, path: bytes, text: bytes, anywhere: bool) -> None:
        call = self.command("files.link", {"path": path, "target": text, "any": anywhere})
        self.do(partial(self.tree.symlink, path, text, anywhere=anywhere), call)

    @rule(path=paths, of=paths)
    def link_hard(self, path: bytes, of: bytes) -> None:
        call = self.command("files.link", {"path": path, "target": of, "hard": True})
        self.do(partial(self.tree.hard_link, path, of), call)

    @rule(path=plain_paths, mode=folder_modes | file_modes)
    def chmod(self, path: bytes, mode: int) -> None:
        call = self.command("files.chmod", {"path": path, "mode": mode})
        self.do(partial(self.tree.chmod, path, mode), call)

    @rule(path=paths, recursive=flags)
    def remove(self, path: bytes, recursive: bool) -> None:
        self.both("remove", path, recursive=recursive)

    def both(self, name: str, *arguments: Any, **options: Any) -> None:
        """What has one name and one signature in the model and the client."""
        model = partial(getattr(self.tree, name), *arguments, **options)
        self.do(model, partial(getattr(self.files, name), *arguments, **options))

    def command(self, name: str, arguments: dict[str, Any]) -> Callable[[], Awaitable[object]]:
        return partial(self.world.run.call, name, arguments)

    # somebody else ----------------------------------------------------------------------------

    @rule(name=names, content=contents)
    def somebody_writes_into_a_file(self, name: bytes, content: bytes) -> None:
        """Not atomically, so that all of its names have it."""
        for node in below(self.tree.root):
            if isinstance(node, File) and node in self.tree.root.entries.values():
                node.content = content
                break
        else:
            return
        [first] = [one for one, it in self.tree.root.entries.items() if it is node][:1]
        Path(os.fsdecode(os.path.join(self.world.workspace, first))).write_bytes(content)
        self.compare()

    @rule(name=names, kind=st.sampled_from(["file", "folder", "fifo", "nothing"]), text=texts)
    def somebody_puts_something_there(self, name: bytes, kind: str, text: bytes) -> None:
        path = os.path.join(self.world.workspace, name)
        wipe(path)
        self.tree.root.entries.pop(name, None)
        if kind != "nothing":
            self.tree.root.entries[name] = make(path, kind)
        self.compare()

    @rule(name=names, text=texts)
    def somebody_puts_a_link_there(self, name: bytes, text: bytes) -> None:
        path = os.path.join(self.world.workspace, name)
        wipe(path)
        os.symlink(text, path)
        self.tree.root.entries[name] = Link(text)
        self.compare()


def make(path: bytes, kind: str) -> Node:
    if kind == "fifo":
        os.mkfifo(path, 0o600)
        return Fifo(0o600)
    if kind == "folder":
        os.mkdir(path, 0o755)
        os.chmod(path, 0o755)
        return Folder(0o755)
    Path(os.fsdecode(path)).write_bytes(b"the one of somebody")
    os.chmod(path, 0o644)
    return File(b"the one of somebody", 0o644)


def wipe(path: bytes) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def as_bytes(name: str | bytes) -> bytes:
    return name.encode() if isinstance(name, str) else name


def machine(tmp_path: Path, examples: int, steps: int, *, apart: bool) -> None:
    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    with world(tmp_path, apart=apart) as shared:
        made: Any = partial(Machine, shared)
        run_state_machine_as_test(made, settings=chosen)


@pytest.mark.parametrize("apart", [False, True])
def test_files_are_what_the_model_says(tmp_path: Path, apart: bool) -> None:
    machine(tmp_path, 4, 8, apart=apart)


@pytest.mark.slow
@pytest.mark.parametrize("apart", [False, True])
def test_files_are_what_the_model_says_for_long(tmp_path: Path, apart: bool) -> None:
    machine(tmp_path, 40, 30, apart=apart)
