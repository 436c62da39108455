"""A file being replaced by a hands in another process: core writes, hands renames.

The connection is needed at the end only. If it was lost by then, what was written lies in the
part, if that has a name, and another upload with the same id goes on with it.
"""

from __future__ import annotations

import os
from contextlib import suppress

from sidecar.errors import CallError, Code, Invalid
from sidecar.hands.apart.asking import QUICK_TIME, ask, read_nothing, read_stat
from sidecar.hands.apart.connection import Connection
from sidecar.hands.fileinterface import FileStat

SYNC_TIME = 300.0  # seconds for what waits until all is on the disk
TRY_AGAIN = (Code.INVALID, Code.PRECONDITION_FAILED)  # the upload goes on


class RemoteUpload:
    """An upload of `SocketHands`. It owns `fd`."""

    def __init__(self, connection: Connection, number: int, fd: int) -> None:
        self.fd = fd
        self.size = os.fstat(fd).st_size  # hands could say anything
        self._connection = connection
        self._number = number

    async def commit(
        self, *, mode: int | None = None, mtime_ns: int | None = None, expect: str | None = None
    ) -> FileStat:
        """See `Upload.commit`."""
        if self.fd < 0:
            raise Invalid("this upload has ended")
        arguments = {
            "upload": self._number,
            "mode": mode,
            "mtime_ns": mtime_ns,
            "expect": expect,
        }
        may_go_on = False
        try:
            if self._connection.is_over:
                raise CallError(Code.HANDS_AWAY, "the upload was lost with the connection to hands")
            return await ask(self._connection, "commit", arguments, read_stat, SYNC_TIME)
        except CallError as error:
            may_go_on = error.code in TRY_AGAIN
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
