"""The counter of frames finds where messages begin, however the bytes come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.frames import FrameCounter

UPGRADE = b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"


def frame(size: int, *, masked: bool) -> bytes:
    """A binary message of `size` bytes (RFC 6455 §5.2)."""
    mask = 0x80 if masked else 0
    if size < 126:
        head = bytes([0x82, mask | size])
    elif size < 1 << 16:
        head = bytes([0x82, mask | 126]) + size.to_bytes(2)
    else:
        head = bytes([0x82, mask | 127]) + size.to_bytes(8)
    return head + (b"mask" if masked else b"") + b"\x82" * size


@pytest.mark.parametrize("masked", [True, False])
def test_frames_of_every_form_of_length_are_found(masked: bool) -> None:
    frames = [frame(size, masked=masked) for size in (0, 125, 126, 65535, 65536)]
    starts, at = [], len(UPGRADE)
    for each in frames:
        starts.append(at)
        at += len(each)
    assert FrameCounter().scan(UPGRADE + b"".join(frames)) == starts


@given(st.lists(st.integers(0, 300), max_size=8), st.integers(1, 50))
def test_it_does_not_matter_how_the_bytes_are_cut(sizes: list[int], step: int) -> None:
    data = UPGRADE + b"".join(frame(size, masked=True) for size in sizes)
    counter, found = FrameCounter(), []
    for begin in range(0, len(data), step):
        found += [begin + start for start in counter.scan(data[begin : begin + step])]
    assert found == FrameCounter().scan(data)
    assert len(found) == len(sizes)
