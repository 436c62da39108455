"""Receipts in memory: the rules of the protocol, behind coroutines."""

from __future__ import annotations

import pytest

from sidecar.errors import LimitExceeded
from sidecar.protocol.ids import uuid7
from sidecar.protocol.receipts import Expired, FenceOutcome, New, Receipt, Repeat, State
from sidecar.receipts import MemoryReceipts, Receipts

NOW = 1_800_000_000.0
FIRST = uuid7(millis=1_800_000_000_000, random=bytes(10))
SECOND = uuid7(millis=1_800_000_000_001, random=bytes(10))


async def test_a_call_is_remembered_until_it_is_evicted() -> None:
    receipts: Receipts = MemoryReceipts(max_receipts=1)
    assert not receipts.durable
    assert await receipts.begin(FIRST, b"digest", now_wall=NOW) == New()
    await receipts.started(FIRST)
    assert receipts.open_count == 1
    await receipts.end(FIRST, b"answer", now_wall=NOW)
    assert receipts.open_count == 0
    assert await receipts.begin(FIRST, b"digest", now_wall=NOW) == Repeat(State.ENDED, b"answer")
    assert await receipts.get(FIRST) == Receipt(FIRST, b"digest", State.ENDED, b"answer")

    assert await receipts.fence(SECOND, now_wall=NOW) is FenceOutcome.FENCED
    assert await receipts.get(FIRST) is None
    expired = Expired(1_800_000_000_000)
    assert await receipts.begin(FIRST, b"digest", now_wall=NOW) == expired


async def test_256_calls_may_be_open() -> None:
    receipts = MemoryReceipts()
    for number in range(256):
        id = uuid7(millis=number, random=bytes(10))
        await receipts.begin(id, b"digest", now_wall=NOW)
    with pytest.raises(LimitExceeded, match="open calls: 257, at most 256"):
        await receipts.begin(FIRST, b"digest", now_wall=NOW)
