"""What this side sends: kept until the other side has it, and then no longer."""

from __future__ import annotations

import pytest

from sidecar.client import CallError, Code
from sidecar.protocol.streams import Piece
from sidecar.streaming.pushing import PushSource


async def test_what_was_received_is_let_go_and_never_given_as_something_else() -> None:
    source = PushSource()
    await source.push(b"0123456789")
    assert await source.read(4, 3) == Piece(4, b"456")
    source.release(4)
    assert await source.read(4, 3) == Piece(4, b"456")
    with pytest.raises(CallError) as caught:
        await source.read(0, 3)
    assert caught.value.code is Code.SOURCE_CHANGED
