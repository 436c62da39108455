"""`run.files.watch`, through a hub and a sidecar."""

from __future__ import annotations

from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from core import Core
from stack import PATIENCE, open_stack, until

from sidecar.client import Batch, CallError, Change, Code, Controller
from sidecar.client.watch import Watch
from sidecar.protocol.names import Scope


async def receive(watch: Watch, *, patience: float = PATIENCE) -> Batch:
    with anyio.fail_after(patience):
        return await watch.receive()


async def until_told(watch: Watch, path: str) -> None:
    while not any(change.path == path for change in (await receive(watch)).changes):
        pass


async def test_changes_arrive_typed_and_gathered(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack:
        run = await stack.attach()
        folder = stack.workspace / "src"
        folder.mkdir()
        async with run.files.watch("src", exclude=["*.pyc"], gather=0.2) as watch:
            (folder / "a.pyc").touch()
            (folder / "b").mkdir()
            (folder / "b" / "c").touch()
            assert await receive(watch) == Batch(
                (Change("added", "b", "directory"), Change("added", "b/c", "file"))
            )
            await run.files.write("src/b/c", b"by ourselves")
            assert await receive(watch) == Batch((Change("modified", "b/c", "file"),))
        await until(lambda: stack.sidecar.dispatcher.open_calls == 0)


async def test_batches_are_iterated(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack:
        run = await stack.attach()
        async with run.files.watch() as watch:
            (stack.workspace / "x").touch()
            async for batch in watch:
                assert [change.path for change in batch.changes] == ["x"]
                break


async def test_who_may_only_look_may_watch(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack:
        url = stack.url("me", scope=Scope.WATCH)
        async with Controller.connect(url, controller="me", watch=True) as controller:
            run = await controller.attach("demo")
            async with run.files.watch() as watch:
                (stack.workspace / "x").touch()
                assert (await receive(watch)).changes


@pytest.mark.parametrize("path, code", [("no", Code.NOT_FOUND), ("file", Code.NOT_DIRECTORY)])
async def test_what_cannot_be_watched_is_an_error(tmp_path: Path, path: str, code: Code) -> None:
    async with open_stack(tmp_path) as stack:
        run = await stack.attach()
        (stack.workspace / "file").touch()
        with pytest.raises(CallError) as caught:
            async with run.files.watch(path):
                pass
        assert caught.value.code is code


async def test_a_lost_connection_only_delays_changes(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack:
        run = await stack.attach()
        async with run.files.watch() as watch:
            await stack.lose("sandbox:demo", "me")
            (stack.workspace / "x").touch()
            assert await receive(watch) == Batch((Change("added", "x", "file"),))


async def test_the_watched_directory_may_be_replaced(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack:
        run = await stack.attach()
        (stack.workspace / "dist").mkdir()
        async with run.files.watch("dist") as watch:
            await run.files.move("dist", "old")
            assert (await receive(watch)).lost == "gone"
            await run.files.mkdir("dist")
            assert (await receive(watch)).lost == "replaced"
            await run.files.write("dist/x", b"")
            await until_told(watch, "x")


@pytest.mark.slow
async def test_a_watch_goes_on_after_core_was_killed(tmp_path: Path, short: Path) -> None:
    async with open_stack(tmp_path, sidecars=0) as stack:
        await stack.start_hands_process(short)
        core = Core(stack, short)
        run = await stack.attach()
        async with run.files.watch() as watch:
            (stack.workspace / "x").touch()
            await until_told(watch, "x")
            await core.kill_and_start()
            assert (await receive(watch, patience=30)).lost == "restarted"
            (stack.workspace / "y").touch()
            await until_told(watch, "y")


@pytest.mark.slow
async def test_a_watch_goes_on_after_hands_was_killed(tmp_path: Path, short: Path) -> None:
    async with open_stack(tmp_path, sidecars=0) as stack:
        hands = await stack.start_hands_process(short)
        Core(stack, short)
        run = await stack.attach()
        async with run.files.watch() as watch:
            hands.kill()
            await anyio.to_thread.run_sync(hands.wait)
            await stack.start_hands_process(short)
            assert (await receive(watch, patience=30)).lost == "restarted"
            (stack.workspace / "y").touch()
            await until_told(watch, "y")


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A socket, whose name may not be long."""
    return tmp_path_factory.mktemp("h") / "s"
