"""How core asks a hands whose connection may be lost: once, or again where that does no harm."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from sidecar.errors import CallError, Code, Started
from sidecar.hands.apart.asking import Read, ask, ask_or_lose
from sidecar.hands.apart.connection import Connection, Lost
from sidecar.hands.apart.dialer import Dialer

FILE_TIME = 60.0  # seconds for one operation on a disk, which may be slow
TRIES = 3  # of a request that may be asked again

T = TypeVar("T")


class Asker:
    """Asks whatever connection there is, and waits for one."""

    def __init__(self, dialer: Dialer) -> None:
        self.dialer = dialer

    async def act(self, method: str, arguments: Mapping[str, Any], read: Read[T], time: float) -> T:
        """Once: asking again might do it twice."""
        connection = await self.dialer.connection()
        return await ask(connection, method, arguments, read, time)

    async def look(
        self, method: str, arguments: Mapping[str, Any], read: Read[T], time: float = FILE_TIME
    ) -> T:
        """Again if the connection is lost: it does no harm."""
        return await self.repeat(
            lambda connection: ask_or_lose(connection, method, arguments, read, time)
        )

    async def repeat(self, attempt: Callable[[Connection], Awaitable[T]]) -> T:
        for _ in range(TRIES):
            connection = await self.dialer.connection()
            with suppress(Lost):
                return await attempt(connection)
        raise CallError(
            Code.HANDS_AWAY,
            f"the connection to hands was lost {TRIES} times",
            started=Started.UNKNOWN,
        )
