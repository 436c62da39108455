"""Keeps core connected to its hands: dials, dials again for ever, and notices a hung one."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import anyio

from sidecar.bell import Bell
from sidecar.errors import CallError, Code, Started
from sidecar.hands.apart.connection import Connection, Lost, Peer, connect
from sidecar.hands.apart.descriptors import are_many_waiting
from sidecar.protocol.backoff import Backoff

log = logging.getLogger(__name__)

FIRST_PAUSE = 0.05  # seconds between tries, doubled up to:
LONGEST_PAUSE = 2.0
STABLE = 10.0  # seconds after which a lost connection counts as the first failure
PATIENCE = 5.0  # seconds that a request waits for a connection
PING_INTERVAL = 5.0  # seconds
MOST_REASONS = 8  # that are logged for one absence
PING_PATIENCE = 15.0  # seconds until a hands that does not answer is taken for hung


class Dialer:
    """`prepare` is awaited for each new connection, before anybody else may use it, and
    `on_connected` is run while it lasts."""

    def __init__(
        self,
        path: str,
        *,
        prepare: Callable[[Connection], Awaitable[None]],
        on_connected: Callable[[Peer], Coroutine[Any, Any, None]],
        on_away: Callable[[str], None],
    ) -> None:
        self.peer: Peer | None = None  # the last one that was met
        self.since = anyio.current_time()  # that it is connected, or away
        self.why = "it has not said hello yet"  # it is away
        self._path = path
        self._prepare = prepare
        self._on_connected = on_connected
        self._on_away = on_away
        self._current: Connection | None = None
        self._changed = Bell()
        self._told: list[str] = []  # why it is away this time
        self._backoff = Backoff(random.random, first=FIRST_PAUSE, longest=LONGEST_PAUSE)

    @property
    def current(self) -> Connection | None:
        """The connection there is now."""
        return None if self._current is None or self._current.is_over else self._current

    async def connection(
        self, *, patience: float | None = None, started: Started = Started.NO
    ) -> Connection:
        """The connection, or the one that comes within `patience` seconds, by default
        `PATIENCE`. Raises `hands_away`."""
        if (connection := self.current) is not None:
            return connection
        with anyio.move_on_after(PATIENCE if patience is None else patience):
            while (connection := self.current) is None:
                await self._changed.wait()
            return connection
        raise CallError(Code.HANDS_AWAY, f"hands is away: {self.why}", started=started)

    async def run(self) -> None:
        """Until cancelled; the connection then stays as it is, until `close`."""
        while True:
            await self._connect_once()
            await anyio.sleep(self._backoff.next())

    def close(self) -> None:
        if self._current is not None:
            self._current.end("the sidecar ends")

    async def _connect_once(self) -> None:
        """From a try to its failure, or to the end of the connection."""
        try:
            connection = await self._dial()
        except (Lost, CallError, OSError) as error:
            self._note_away(_reason(error))
            return
        self._current = connection
        self.peer = connection.peer
        self.since = anyio.current_time()
        self._told.clear()
        log.info(
            "hands connected: uid %d, process %d (%s)",
            self.peer.uid,
            self.peer.pid,
            self.peer.trust,
        )
        self._changed.ring()
        async with anyio.create_task_group() as group:
            group.start_soon(self._on_connected, self.peer)
            await _watch(connection)
            group.cancel_scope.cancel()
        if anyio.current_time() - self.since >= STABLE:
            self._backoff.reset()
        self._current = None
        self.since = anyio.current_time()
        self._note_away(connection.why)

    async def _dial(self) -> Connection:
        if are_many_waiting():
            raise Lost("it sent descriptors that cannot be closed")
        connection = connect(os.fspath(self._path))
        try:
            await connection.greet()
            await self._prepare(connection)
        except BaseException as error:
            connection.end(f"it was given up: {error}")
            raise
        return connection

    def _note_away(self, why: str) -> None:
        """Told once for each time that it goes, and logged once for each reason why it stays
        away, not for each try."""
        self.why = why
        if not self._told:
            self._on_away(why)
        if why not in self._told and len(self._told) < MOST_REASONS:
            self._told.append(why)
            log.warning("hands at %s is away: %s; it is dialled again for ever", self._path, why)


async def _watch(connection: Connection) -> None:
    """Until the connection ends, by itself or because hands does not answer any more."""
    while True:
        with anyio.move_on_after(PING_INTERVAL):
            await connection.ended.wait()
        if connection.is_over:
            return
        try:
            await connection.ask("ping", {}, time=PING_PATIENCE)
        except (CallError, Lost) as error:
            connection.end(_reason(error))


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return error.message if isinstance(error, CallError) else str(error)
