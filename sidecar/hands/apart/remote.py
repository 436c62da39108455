"""`SocketHands`: hands in another process, perhaps another container, behind a Unix socket.

Core's side of `server`. Hands is not trusted here: what it sends is checked (`messages`,
`descriptors`), every wait for it has an end, and its pipes are read so that it cannot make core
stand still (`pipeio`).

While hands is away a request waits 5 s for it and then fails with `hands_away`. `started` says
`no` for a request that was never sent, and `unknown` for one whose answer was lost with the
connection, unless asking twice does no harm: then it is asked again.

Hands that comes back with another incarnation was restarted, and its programs, which went on,
are not its children. It is told of them (`adopt`), so that they can be signalled and their end
seen; how they ended is `outcome_unknown`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import anyio

from sidecar.errors import CallError, Code, Started
from sidecar.hands.apart import messages
from sidecar.hands.apart.asker import FILE_TIME, TRIES, Asker
from sidecar.hands.apart.asking import (
    QUICK_TIME,
    ask_or_lose,
    read_answer,
    read_exit,
    read_nothing,
    read_running,
)
from sidecar.hands.apart.connection import Connection, Lost, Peer, Question, State
from sidecar.hands.apart.dialer import Dialer
from sidecar.hands.apart.remotefiles import RemoteFiles
from sidecar.hands.interface import (
    Exit,
    Known,
    Program,
    Running,
    Survivor,
    Target,
)
from sidecar.hands.pipeio import Splicing

SPAWN_TIME = 30.0
KILL_TIME = 10.0  # beyond the grace
AWAY_TIME = 60.0  # that `wait` waits for a hands that has gone
MAX_OWED = 4096  # requests kept for a hands that is away
NOBODY = b""  # in place of the incarnation of a hands
MAX_PROGRAMS = 4096  # more than a hands keeps; the oldest is no longer adopted

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Started:
    """A program that core knows, and the hands that has it."""

    pid: int
    start_time: int
    incarnation: bytes
    ended: Question | None = None  # answered when it has ended, unless the connection is lost


async def _greet_nobody(peer: Peer) -> None:
    """Nobody wants to know."""


class SocketHands(RemoteFiles):
    """See `interface.Hands`. `run` keeps the connection; without it, every call fails."""

    form = "socket"
    keeps_programs = True

    def __init__(
        self,
        path: str,
        *,
        on_connected: Callable[[Peer], Coroutine[Any, Any, None]] = _greet_nobody,
        on_away: Callable[[str], None] = lambda why: None,
    ) -> None:
        self.pipe_io = Splicing()
        self._dialer = Dialer(
            path, prepare=self._prepare, on_connected=on_connected, on_away=on_away
        )
        super().__init__(Asker(self._dialer))
        self._programs: dict[bytes, _Started] = {}
        self._owed: dict[tuple[str, bytes], bytes] = {}  # method and key: for which incarnation

    @classmethod
    @asynccontextmanager
    async def open_socket(cls, path: str, **options: Any) -> AsyncIterator[SocketHands]:
        """Kept connected in the block, closed at its end."""
        hands = cls(path, **options)
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(hands.run)
                yield hands
                group.cancel_scope.cancel()
        finally:
            await hands.aclose()

    @property
    def trust(self) -> str:
        peer = self._dialer.peer
        return "unknown" if peer is None else peer.trust

    def status(self) -> Mapping[str, str | float]:
        """See `Hands.status`."""
        since = anyio.current_time() - self._dialer.since
        if self._dialer.current is not None:
            return {"state": "connected", "since": since}
        return {"state": "away", "since": since, "why": self._dialer.why}

    async def run(self) -> None:
        """Until cancelled. The connection stays for what has to be cleaned up, until `aclose`."""
        await self._dialer.run()

    async def aclose(self) -> None:
        """Hang up. Programs go on, for the next core."""
        self._dialer.close()
        self.pipe_io.close()

    async def capabilities(self) -> Mapping[str, str | bool]:
        """What hands said of itself when it connected last."""
        peer = self._dialer.peer
        if peer is None:
            raise CallError(Code.HANDS_AWAY, f"hands is away: {self._dialer.why}")
        return peer.capabilities

    # Programs ----------------------------------------------------------------------------

    async def spawn(self, program: Program, *, key: bytes) -> Running:
        """See `Hands.spawn`. If the answer is lost, hands is asked whether it started."""
        arguments = {"program": messages.program_map(program), "key": key}
        connection = await self._dialer.connection()
        incarnation = connection.peer.incarnation
        for _ in range(TRIES):
            try:
                return await self._start(connection, arguments, program)
            except Lost:
                connection = await self._dialer.connection(started=Started.UNKNOWN)
            if connection.peer.incarnation != incarnation:
                break
            try:
                return await self._take(connection, key)
            except CallError as error:
                if error.code is not Code.NOT_FOUND:
                    raise
            except Lost:
                break
        raise CallError(
            Code.HANDS_AWAY,
            "hands went away while it was starting the program",
            started=Started.UNKNOWN,
        )

    def adopt(self, key: bytes, pid: int, start_time: int) -> bool:
        """See `Hands.adopt`. Hands is told when it connects; one that knows it takes no notice."""
        if key not in self._programs:
            self._programs[key] = _Started(pid, start_time, NOBODY)
        return True

    async def take(self, key: bytes) -> Running:
        return await self._asker.repeat(lambda connection: self._take(connection, key))

    async def end_input(self, key: bytes) -> None:
        await self._settle("end_input", key)

    async def resize(self, key: bytes, *, rows: int, cols: int) -> None:
        arguments = {"key": key, "rows": rows, "cols": cols}
        await self._asker.look("resize", arguments, read_nothing, QUICK_TIME)

    async def signal(self, key: bytes, number: int, to: Target = Target.GROUP) -> None:
        arguments = {"key": key, "number": number, "to": str(to)}
        await self._asker.act("signal", arguments, read_nothing, QUICK_TIME)

    async def kill(self, key: bytes, *, grace: float, since: int | None = None) -> None:
        arguments = {"key": key, "grace": float(grace), "since": since}
        await self._asker.look("kill", arguments, read_nothing, grace + KILL_TIME)

    async def wait(self, key: bytes) -> Exit:
        """See `Hands.wait`. It goes on over lost connections, for 60 s without a new one."""
        was_lost = False
        while True:
            is_ours = was_lost or key in self._programs
            started = Started.YES if is_ours else Started.UNKNOWN
            connection = await self._dialer.connection(patience=AWAY_TIME, started=started)
            try:
                return await self._wait(connection, key)
            except Lost:
                was_lost = True
            except CallError as error:
                if is_ours and error.code is Code.NOT_FOUND:
                    raise CallError(
                        Code.OUTCOME_UNKNOWN,
                        "hands was restarted, and the program was not found again",
                        started=Started.YES,
                    ) from None
                raise

    async def _wait(self, connection: Connection, key: bytes) -> Exit:
        program = self._programs.get(key)
        if program is None or program.ended is None or program.ended.state is State.LOST:
            return await ask_or_lose(connection, "wait", {"key": key}, read_exit, None)
        await program.ended.settled.wait()
        return read_answer(connection, program.ended, read_exit)

    async def known(self) -> Sequence[Known]:
        return await self._asker.look("known", {}, lambda q: messages.known_from(q.value))

    async def survivors(self) -> Mapping[bytes, Sequence[Survivor]]:
        return await self._asker.look("survivors", {}, lambda q: messages.survivors_from(q.value))

    async def forget(self, key: bytes) -> None:
        self._programs.pop(key, None)
        await self._settle("forget", key)

    # How it is asked ---------------------------------------------------------------------

    async def _settle(self, method: str, key: bytes) -> None:
        """What must be done at some time: now, or when this hands is there again."""
        connection = self._dialer.current
        if connection is not None:
            with suppress(Lost):
                arguments = {"key": key}
                await ask_or_lose(connection, method, arguments, read_nothing, QUICK_TIME)
                return
        if self._dialer.peer is not None and len(self._owed) < MAX_OWED:
            self._owed[method, key] = self._dialer.peer.incarnation

    async def _prepare(self, connection: Connection) -> None:
        """A new connection: tell a restarted hands what it has to look after, and this one what
        it could not be told meanwhile."""
        incarnation = connection.peer.incarnation
        foreign = {
            key: replace(program, incarnation=incarnation)
            for key, program in self._programs.items()
            if program.incarnation != incarnation
        }
        if foreign:
            rows = [[key, p.pid, p.start_time] for key, p in foreign.items()]
            await ask_or_lose(connection, "adopt", {"programs": rows}, read_nothing, FILE_TIME)
            self._programs |= {key: p for key, p in foreign.items() if key in self._programs}
        for (method, key), whose in self._owed.items():
            if whose == incarnation:
                connection.do(method, {"key": key})
        self._owed.clear()

    async def _start(
        self, connection: Connection, arguments: Mapping[str, Any], program: Program
    ) -> Running:
        key = arguments["key"]

        ended = connection.expect()  # the answer to `wait`, which nobody need ask for then

        def forget(value: Any) -> None:
            connection.do("forget", {"key": key})

        def undo(value: Any) -> None:
            connection.do("kill", {"key": key, "grace": 0.0, "since": None}, forget)

        def read(question: Question) -> Running:
            return read_running(question, _streams_of(program))

        arguments = {**arguments, "wait": ended.id}
        running = await ask_or_lose(connection, "spawn", arguments, read, SPAWN_TIME, undo)
        self._remember(key, running, connection, ended)
        return running

    async def _take(self, connection: Connection, key: bytes) -> Running:
        running = await ask_or_lose(connection, "take", {"key": key}, read_running, QUICK_TIME)
        self._remember(key, running, connection)
        return running

    def _remember(
        self,
        key: bytes,
        running: Running,
        connection: Connection,
        ended: Question | None = None,
    ) -> None:
        incarnation = connection.peer.incarnation
        self._programs[key] = _Started(running.pid, running.start_time, incarnation, ended)
        if len(self._programs) > MAX_PROGRAMS:
            del self._programs[next(iter(self._programs))]


def _streams_of(program: Program) -> set[str]:
    found = {"stdout"}
    if program.terminal is None:
        found.add("stderr")
    if program.stdin or program.terminal is not None:
        found.add("stdin")
    if program.control:
        found.add("control")
    return found
