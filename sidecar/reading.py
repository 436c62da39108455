"""Reading a descriptor by offset without a thread for what is in memory already.

A hop to a thread costs 50 us, a cached 256 KiB chunk 35. So a read is first tried with
RWF_NOWAIT (preadv2(2)), which answers EAGAIN where it would wait for the disk, and only then
given to a thread. File systems that do not know the flag (EOPNOTSUPP) are read in the thread
from then on.

Linux 5.9 and 5.10 may return 0 before the end of the file (preadv2(2), BUGS), so the thread has
the last word on where the end is.
"""

from __future__ import annotations

import errno
import os
import threading
from contextlib import suppress

from sidecar.protocol.limits import READ_BYTES
from sidecar.threads import in_thread

_NOWAIT: int | None = getattr(os, "RWF_NOWAIT", None)
_UNKNOWN_FLAG = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


class _Room(threading.local):
    """What is read into, before it is copied: one for all readers of a thread, for none of them
    waits in between. Kept, for clearing a new one costs as much as reading."""

    def __init__(self) -> None:
        self.buffer = bytearray()

    def of(self, size: int) -> memoryview:
        if len(self.buffer) < size:
            self.buffer = bytearray(size)
        return memoryview(self.buffer)[:size]


_ROOM = _Room()


class OffsetReader:
    """Reads one descriptor, which stays its maker's to close, even while a read is under way."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._may_try = _NOWAIT is not None
        self.hops = 0  # reads that a thread did

    async def read(self, offset: int, size: int) -> bytes:
        """At most `size` bytes (and 1 MiB) from `offset`; fewer are no sign of the end, none is.

        Cancelling returns at once, also while a network file system hangs.
        """
        size = min(size, READ_BYTES)
        if self._may_try and (data := self._read_nowait(offset, size)):
            return data
        return await self._read_in_thread(offset, size)

    def _read_nowait(self, offset: int, size: int) -> bytes | None:
        room = _ROOM.of(size)
        try:
            count = os.preadv(self._fd, [room], offset, _NOWAIT or 0)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno not in _UNKNOWN_FLAG:
                raise
            self._may_try = False
            return None
        return bytes(room[:count])

    async def _read_in_thread(self, offset: int, size: int) -> bytes:
        self.hops += 1
        # The thread reads a duplicate, so that closing ours cannot make it read the file that
        # got the number next. Whoever pops the duplicate closes it: the thread, or we, if we
        # are cancelled before it began.
        duplicates = [os.dup(self._fd)]

        def read() -> bytes:
            fd = duplicates.pop()
            try:
                return os.pread(fd, size, offset)
            finally:
                os.close(fd)

        try:
            return await in_thread(read, abandon_on_cancel=True)
        finally:
            with suppress(IndexError):
                os.close(duplicates.pop())
