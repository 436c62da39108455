"""A table of programs over real hands, which can be taken away."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread

from sidecar.clock import SystemClock
from sidecar.errors import CallError, Code
from sidecar.hands.interface import Exit, Known, Program, Running, Survivor
from sidecar.hands.local.hands import LocalHands
from sidecar.identity import new_id
from sidecar.processes.process import Process
from sidecar.processes.record import Spec
from sidecar.processes.store import ProgramStore
from sidecar.processes.table import Processes


class Reach:
    """Hands of this process, as if over a socket: out of reach when told so, and what it has kept
    can be taken once more."""

    def __init__(self, hands: LocalHands) -> None:
        self.is_away = False
        self.knows_exits = True
        self.takeable: dict[bytes, Running] = {}
        self.forgotten: list[bytes] = []
        self.inputs_ended: list[bytes] = []
        self.looks = 0
        self._hands = hands
        self._left = anyio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hands, name)

    def leave(self) -> None:
        self.is_away = True
        self._left.set()

    def come_back(self) -> None:
        self.is_away = False
        self._left = anyio.Event()

    def status(self) -> Mapping[str, str | float]:
        return {"state": "away" if self.is_away else "connected", "since": 0.0}

    async def wait(self, key: bytes) -> Exit:
        found: list[Exit] = []
        failed: list[CallError] = []

        async def observe() -> None:
            try:
                found.append(await self._hands.wait(key))
            except CallError as error:
                failed.append(error)
            group.cancel_scope.cancel()

        async def notice() -> None:
            await self._left.wait()
            group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(observe)
            group.start_soon(notice)
        if failed:
            raise failed[0]
        if self.is_away or not found:
            raise CallError(Code.HANDS_AWAY, "hands is not connected")
        if not self.knows_exits:
            raise CallError(Code.OUTCOME_UNKNOWN, "hands was restarted meanwhile")
        return found[0]

    async def known(self) -> Sequence[Known]:
        return await self._hands.known()

    async def take(self, key: bytes) -> Running:
        await anyio.lowlevel.checkpoint()
        if key not in self.takeable:
            raise CallError(Code.NOT_FOUND, "no program of this key is known")
        return self.takeable.pop(key)

    async def end_input(self, key: bytes) -> None:
        self.inputs_ended.append(key)

    async def survivors(self) -> Mapping[bytes, Sequence[Survivor]]:
        self.looks += 1
        return await self._hands.survivors()

    async def forget(self, key: bytes) -> None:
        await anyio.sleep(0.005)  # there and back
        self.forgotten.append(key)
        await self._hands.forget(key)


class Bench:
    """`table` over `hands`, and every event that they made."""

    def __init__(self, hands: Reach, folder: Path, store: ProgramStore) -> None:
        self.hands = hands
        self.folder = folder
        self.events: list[tuple[str, Any]] = []
        self.clock = SystemClock()
        self.table = Processes(
            hands,  # type: ignore[arg-type]  # what it does not have itself, it has from hands
            self.clock,
            store=store,
            emit=self.emit,
        )

    def emit(self, name: str, data: Any, *, call: bytes | None = None) -> int:
        self.events.append((name, data))
        return len(self.events)

    def new_id(self) -> bytes:
        return new_id(self.clock)

    async def start(self, shell: str, *, stdin: bool = False, **options: Any) -> Process:
        """Start and supervise it apart from any call."""
        spec = Spec(Program(shell=shell, stdin=stdin), **options)
        process = await self.table.start(spec, id=self.new_id(), owner="me")
        self.table.adopt_supervision(process)
        return process

    async def run(self, shell: str, **options: Any) -> Process:
        """Start it and wait for its end."""
        process = await self.start(shell, **options)
        with anyio.fail_after(10):
            await process.settled()
        return process

    def named(self, name: str) -> list[Any]:
        return [data for found, data in self.events if found == name]


@asynccontextmanager
async def open_other(bench: Bench) -> AsyncIterator[Bench]:
    """Another table over the same hands, as of a core that was started anew, and has nothing of
    what the one before had on disk."""
    folder = bench.folder / "other"
    folder.mkdir(exist_ok=True)
    async with _open(bench.hands, folder) as other:
        yield other


@asynccontextmanager
async def _open(hands: Reach, folder: Path) -> AsyncIterator[Bench]:
    store = await anyio.to_thread.run_sync(ProgramStore.open, folder)
    bench = Bench(hands, folder, store)
    async with bench.table.running():
        yield bench


@asynccontextmanager
async def open_bench(folder: Path) -> AsyncIterator[Bench]:
    workspace = folder / "workspace"
    workspace.mkdir()
    async with LocalHands.open_root(str(workspace)) as hands:
        async with _open(Reach(hands), folder) as bench:
            yield bench


async def read_all(process: Process, n: int = 1) -> bytes:
    """What is kept of an output."""
    spool = process.outputs[n].spool
    data = b""
    while len(data) < spool.size:
        data += (await spool.read(len(data), 1 << 20)).data
    return data
