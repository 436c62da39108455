"""A file being replaced by a hands in another process: core writes, hands renames."""

from __future__ import annotations

import os
from contextlib import suppress

from sidecar.errors import CallError, Code, Invalid
from sidecar.hands.apart.asking import QUICK_TIME, ask, read_nothing, read_stat
from sidecar.hands.apart.connection import Connection
from sidecar.hands.interface import FileStat

SYNC_TIME = 300.0  # seconds for what waits until all is on the disk


class RemoteUpload:
    """An upload of `SocketHands`. It owns `fd`, which is -1 once the upload has ended."""

    def __init__(self, connection: Connection, number: int, fd: int) -> None:
        self.fd = fd
        self._connection = connection
        self._number = number

    async def commit(self, *, mode: int | None = None, mtime_ns: int | None = None) -> FileStat:
        """See `Upload.commit`. After `invalid` it may be tried once more."""
        if self.fd < 0:
            raise Invalid("this upload has ended")
        arguments = {"upload": self._number, "mode": mode, "mtime_ns": mtime_ns}
        may_go_on = False
        try:
            if self._connection.is_over:
                raise CallError(Code.HANDS_AWAY, "the upload was lost with the connection to hands")
            return await ask(self._connection, "commit", arguments, read_stat, SYNC_TIME)
        except CallError as error:
            may_go_on = error.code is Code.INVALID
            raise
        finally:
            if not may_go_on:
                self._close()

    async def abort(self) -> None:
        if self.fd >= 0:
            self._close()
            with suppress(CallError):  # what is left of it goes with the connection
                arguments = {"upload": self._number}
                await ask(self._connection, "abort", arguments, read_nothing, QUICK_TIME)

    def _close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
