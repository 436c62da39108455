"""A TCP proxy that does to connections what networks do, at the very byte that was chosen.

One `Link` stands between one program and the hub. A trigger is armed for one direction: after so
many bytes, or so many bytes into the nth WebSocket frame from then on. What comes before the
place goes through; then `strike` is called, and only then the rest goes on, if there is a way.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum

import anyio
from anyio.abc import SocketAttribute, SocketStream, TaskGroup

from tests.chaos.frames import FrameCounter

READ = 64 * 1024  # bytes
LINGER_NOT = struct.pack("ii", 1, 0)  # close() sends a reset (socket(7), SO_LINGER)


class Way(StrEnum):
    """A direction: up is to the hub."""

    UP = "up"
    DOWN = "down"


@dataclass(slots=True)
class Trigger:
    """After `count` more bytes; or, of a `frame` count, `into` bytes into that frame."""

    way: Way
    strike: Callable[[], None]
    count: int
    by_frame: bool = False
    into: int = 1

    def place(self, data: bytes, starts: list[int]) -> int | None:
        """The place in `data` where it strikes; None if it lies behind. Counts what passes."""
        if self.by_frame:
            if len(starts) < self.count:
                self.count -= len(starts)
                return None
            self.by_frame = False
            self.count = starts[self.count - 1] + self.into
        if self.count > len(data):
            self.count -= len(data)
            return None
        return self.count


@dataclass(eq=False, slots=True)
class _Pair:
    """One connection through the proxy."""

    near: SocketStream
    far: SocketStream
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)

    def reset(self) -> None:
        """Both ends see a reset; what is on its way is lost."""
        for stream in (self.near, self.far):
            raw: socket.socket = stream.extra(SocketAttribute.raw_socket)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
        self.scope.cancel()


class Link:
    """A listening port that leads to the hub."""

    def __init__(self, name: str, target: tuple[str, int]) -> None:
        self.name = name
        self.port = 0
        self.passed = {Way.UP: 0, Way.DOWN: 0}  # bytes, in all
        self.is_down = False  # then nobody is let in
        self.lag = 0.0  # seconds by which each piece is late
        self.swallowed: set[Way] = set()  # whose bytes go nowhere, unnoticed
        self._target = target
        self._trigger: Trigger | None = None
        self._pairs: set[_Pair] = set()
        self._open = anyio.Event()
        self._open.set()

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[Link]:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        self.port = listener.extra(SocketAttribute.local_port)
        async with listener, anyio.create_task_group() as group:
            group.start_soon(listener.serve, self._serve_one)
            yield self
            group.cancel_scope.cancel()

    # what can be done to it ---------------------------------------------------------------

    def arm(self, trigger: Trigger) -> None:
        self._trigger = trigger

    def disarm(self) -> None:
        self._trigger = None

    def cut(self) -> None:
        """Reset every connection there is."""
        for pair in list(self._pairs):
            pair.reset()

    def stall(self) -> None:
        """Nothing moves until `heal`; nobody is told."""
        self._open = anyio.Event()

    def heal(self) -> None:
        """As if nothing had been done."""
        self.is_down = False
        self.lag = 0.0
        self.swallowed.clear()
        self._open.set()

    # one connection -----------------------------------------------------------------------

    async def _serve_one(self, near: SocketStream) -> None:
        async with near:
            if self.is_down:
                return
            try:
                far = await anyio.connect_tcp(*self._target)
            except OSError:
                return
            async with far:
                await self._join(_Pair(near, far))

    async def _join(self, pair: _Pair) -> None:
        self._pairs.add(pair)
        try:
            with pair.scope:
                async with anyio.create_task_group() as group:
                    group.start_soon(self._pump, group, pair.near, pair.far, Way.UP)
                    group.start_soon(self._pump, group, pair.far, pair.near, Way.DOWN)
        finally:
            self._pairs.discard(pair)

    async def _pump(
        self, group: TaskGroup, source: SocketStream, target: SocketStream, way: Way
    ) -> None:
        counter = FrameCounter()
        try:
            while True:
                data = await source.receive(READ)
                await self._pass(data, counter.scan(data), target, way)
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            group.cancel_scope.cancel()

    async def _pass(self, data: bytes, starts: list[int], target: SocketStream, way: Way) -> None:
        trigger = self._trigger
        place = None
        if trigger is not None and trigger.way is way:
            place = trigger.place(data, starts)
        if trigger is not None and place is not None:
            self._trigger = None
            try:
                await self._send(data[:place], target, way)
            finally:
                trigger.strike()  # also if that very moment ends the connection
            data = data[place:]
        await self._send(data, target, way)

    async def _send(self, data: bytes, target: SocketStream, way: Way) -> None:
        await anyio.sleep(self.lag)
        await self._open.wait()
        self.passed[way] += len(data)
        if data and way not in self.swallowed:
            await target.send(data)
