"""The records that a tool of hands writes, as they come."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio

from sidecar.errors import CallError, Code, ProtocolError, Started
from sidecar.hands.fileinterface import Tool
from sidecar.hands.pipeio import PipeIO
from sidecar.hands.records import Records

READ_SIZE = 64 * 1024


async def records_of(tool: Tool, io: PipeIO) -> AsyncIterator[Any]:
    """Until the pipe ends. Raises `hands_away` for what is no record; what a record says is the
    reader's to check."""
    records = Records()
    try:
        while data := await _read(tool, io):
            for record in records.receive(data):
                yield record
        records.check_end()
    except ProtocolError as error:
        raise broken(error) from None


def broken(error: ProtocolError) -> CallError:
    """What is answered when hands said what it never says."""
    message = f"hands broke the protocol: {error}"
    return CallError(Code.HANDS_AWAY, message, started=Started.UNKNOWN)


async def _read(tool: Tool, io: PipeIO) -> bytes:
    while True:
        await anyio.lowlevel.checkpoint()
        try:
            return io.read(tool.fd, READ_SIZE)
        except (BlockingIOError, InterruptedError):
            await anyio.wait_readable(tool.fd)
        except OSError as error:
            raise ProtocolError(f"its pipe cannot be read: {error.strerror}") from None
