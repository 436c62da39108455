"""New ids: of calls, series and incarnations (UUIDv7, see `protocol.ids`)."""

from __future__ import annotations

import os
import threading

from sidecar.clock import Clock
from sidecar.protocol.ids import RANDOM_BYTES, uuid7, uuid7_after

_lock = threading.Lock()
_latest: bytes | None = None


def new_id(clock: Clock) -> bytes:
    """An id that nobody has, and that sorts after every earlier one of this process.

    It stays so when the calendar is set back: ids then keep the latest time they have seen.
    Any thread may call it.
    """
    global _latest
    random = os.urandom(RANDOM_BYTES)
    with _lock:
        millis = int(clock.wall() * 1000)
        if _latest is None:
            _latest = uuid7(millis=millis, random=random)
        else:
            _latest = uuid7_after(_latest, millis=millis, random=random)
        return _latest
