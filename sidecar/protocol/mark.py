"""The mark beside a log: whether its numbers may go on, or must begin anew.

A number that was published is never given to another event. Events are published when they
are *written*, which survives the death of the process and not of the machine. So after a start
the numbers go on only if nothing that was written can be missing:

- the log was closed in order and ends where it ended then, or
- it was not, but the machine has not been started since (its boot id is the same; random(4));

and if the log had not given up writing before: `degraded` is put down *before* anything is
published that is only in memory.

The mark is one block, overwritten in place, so that it can be put down on a full disk too. It
has fewer than 512 bytes, which disks write whole or not at all. Without a valid mark the
numbers begin anew.
"""

from __future__ import annotations

import struct
from zlib import crc32

from sidecar.protocol.record import Record, record
from sidecar.protocol.segments import FORMAT, Damaged, NewerFormat

MAGIC = b"sidecar\x1d"
BLOCK_BYTES = 4096  # what is set aside on disk
NO_BOOT = bytes(16)  # where the kernel does not tell: equal to no other

_CLEAN, _DEGRADED = 1, 2
_MARK = struct.Struct("<8sHH16s16sQQ")
_CRC = struct.Struct("<I")


@record
class Mark(Record):
    """What the block says. `end` is the last segment and its length when it was closed."""

    series: bytes
    boot: bytes
    is_degraded: bool = False
    is_clean: bool = False
    end: tuple[int, int] = (0, 0)

    def goes_on(self, *, boot: bytes, end: tuple[int, int]) -> bool:
        """Whether the log, found to end at `end`, has everything that was ever published."""
        if self.is_degraded:
            return False
        return self.end == end if self.is_clean else self.boot == boot != NO_BOOT


def encode_mark(mark: Mark) -> bytes:
    """The whole block."""
    flags = _CLEAN * mark.is_clean | _DEGRADED * mark.is_degraded
    packed = _MARK.pack(MAGIC, FORMAT, flags, mark.series, mark.boot, *mark.end)
    return (packed + _CRC.pack(crc32(packed))).ljust(BLOCK_BYTES, b"\0")


def decode_mark(data: bytes) -> Mark:
    """Raises `NewerFormat`, or `Damaged` for what is no mark."""
    if len(data) < _MARK.size + _CRC.size or data[:8] != MAGIC:
        raise Damaged("no mark")
    _, format, flags, series, boot, ordinal, length = _MARK.unpack_from(data)
    if format > FORMAT:
        raise NewerFormat(format)
    (crc,) = _CRC.unpack_from(data, _MARK.size)
    if crc32(data[: _MARK.size]) != crc:
        raise Damaged("the mark does not match its CRC")
    return Mark(series, boot, bool(flags & _DEGRADED), bool(flags & _CLEAN), (ordinal, length))
