"""Work that a hands in another process does, with one end of its pipe here."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from sidecar.errors import CallError, Code, Started
from sidecar.hands.apart.asking import QUICK_TIME, ask, ask_or_lose, read_nothing, read_outcome
from sidecar.hands.apart.connection import Connection, Lost


class RemoteTool:
    """A tool of `SocketHands`. It ends with the connection."""

    def __init__(self, connection: Connection, number: int, fd: int) -> None:
        self.fd = fd
        self._connection = connection
        self._number = number
        self._is_over = False

    def take_fd(self) -> int:
        fd, self.fd = self.fd, -1
        return fd

    def close_fd(self) -> None:
        if self.fd >= 0:
            os.close(self.take_fd())

    async def result(self) -> dict[str, Any]:
        """See `Tool.result`. Waits as long as the tool runs and hands is connected."""
        arguments = {"tool": self._number}
        try:
            return await ask_or_lose(self._connection, "tool_result", arguments, read_outcome, None)
        except Lost as error:
            raise CallError(
                Code.HANDS_AWAY,
                f"the connection to hands was lost: {error}",
                started=Started.UNKNOWN,
            ) from None

    async def aclose(self) -> None:
        """See `Tool.aclose`. Cancelled, it has told hands all the same."""
        self.close_fd()
        if self._is_over or self._connection.is_over:
            return
        self._is_over = True
        with suppress(CallError):  # what is left of it goes with the connection
            arguments = {"tool": self._number}
            await ask(self._connection, "tool_end", arguments, read_nothing, QUICK_TIME)
