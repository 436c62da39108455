"""The Unix sockets of a sidecar: `admin.sock` for its operator, `agent.sock` for its agent.

One JSON object a line in, one out: `{"op": "health"}`. Both lie in the state folder, which is
0700; `admin.sock` asks the kernel besides who is calling (SO_PEERCRED, unix(7)) and serves our
own uid and root only. Neither opens a network port.
"""

from __future__ import annotations

import json
import logging
import math
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from sidecar.threads import in_thread

log = logging.getLogger(__name__)

LINE_BYTES = 64 * 1024  # a longer request is refused
IDLE = 30.0  # seconds without a request until a connection is closed
CONNECTIONS = 16  # at once; more wait

Operation = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]]


class LocalSocket:
    """Serves `operations` at `path`."""

    def __init__(
        self, path: Path, operations: Mapping[str, Operation], *, admin: bool = False
    ) -> None:
        self._path = path
        self._operations = operations
        self._admin = admin
        self._limit = anyio.CapacityLimiter(CONNECTIONS)

    async def run(self) -> None:
        """Until cancelled; removes its file at both ends."""
        await in_thread(self._path.unlink, True)
        listener = await anyio.create_unix_listener(self._path, mode=0o600)
        try:
            async with listener:
                await listener.serve(self._serve)
        finally:
            with anyio.CancelScope(shield=True):
                await in_thread(self._path.unlink, True)

    async def _serve(self, stream: SocketStream) -> None:
        async with self._limit, stream:
            try:
                with anyio.fail_after(IDLE) as idle:
                    await self._converse(stream, idle)
            except (anyio.IncompleteRead, anyio.BrokenResourceError, TimeoutError):
                return

    async def _converse(self, stream: SocketStream, idle: anyio.CancelScope) -> None:
        """Until the other side hangs up, breaks a rule, or `idle` ends it."""
        if self._admin and not _may_administer(stream):
            await stream.send(_error("denied", "not your sidecar"))
            return
        lines = BufferedByteReceiveStream(stream)
        while True:
            try:
                line = await lines.receive_until(b"\n", LINE_BYTES)
            except anyio.DelimiterNotFound:
                await stream.send(_wrong(f"a request of more than {LINE_BYTES} bytes"))
                return
            idle.deadline = math.inf  # the operation takes the time that it takes
            answer = await self._answer(line)
            idle.deadline = anyio.current_time() + IDLE
            await stream.send(answer)

    async def _answer(self, line: bytes) -> bytes:
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):  # nested too deep for the parser
            return _wrong("a request is one JSON object a line")
        if not isinstance(request, dict):
            return _wrong(f"a request is a JSON object, got {type(request).__name__}")
        operation = self._operations.get(str(request.get("op")))
        if operation is None:
            names = ", ".join(sorted(self._operations))
            return _wrong(f"no operation {request.get('op')!r}; there are {names}")
        try:
            return _line(await operation(request))
        except Exception:  # a defect of one operation ends its answer, not the sidecar
            log.exception("the operation %r failed inside", request.get("op"))
            return _error("internal", "a defect of the sidecar; its log says more")


async def ask(path: Path, request: Mapping[str, Any], *, timeout: float = 5.0) -> dict[str, Any]:
    """Send one request to a local socket. Raises `OSError` or `TimeoutError`."""
    with anyio.fail_after(timeout):
        async with await anyio.connect_unix(path) as stream:
            await stream.send(_line(request))
            lines = BufferedByteReceiveStream(stream)
            try:
                line = await lines.receive_until(b"\n", 16 * LINE_BYTES)
            except anyio.IncompleteRead:
                raise ConnectionResetError("the sidecar hung up") from None
    answer = json.loads(line)
    assert isinstance(answer, dict)
    return answer


def _may_administer(stream: SocketStream) -> bool:
    raw: socket.socket = stream.extra(SocketAttribute.raw_socket)
    credentials = raw.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    return uid in (0, os.geteuid())


def _line(answer: Mapping[str, Any]) -> bytes:
    return json.dumps(answer).encode() + b"\n"


def _error(code: str, message: str) -> bytes:
    return _line({"error": code, "message": message})


def _wrong(message: str) -> bytes:
    return _error("invalid", message)
