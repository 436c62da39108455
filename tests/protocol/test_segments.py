"""Segments as bytes: headers, frames, and what is told from what was torn or damaged."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.protocol.segments import (
    FRAME_BYTES,
    HEADER_BYTES,
    Damaged,
    Frame,
    Header,
    Heading,
    NewerFormat,
    behind_damage,
    decode_header,
    encode_frame,
    encode_header,
    scan,
    segment_name,
    segment_ordinal,
)

HEADER = Header(b"s" * 16, 3, Heading(first=41, bytes=1234))
FRAMES = b"".join([encode_frame(1, 7, b"seven"), encode_frame(2, 0, b""), encode_frame(1, 8, b"8")])


def test_a_header_and_its_bytes() -> None:
    data = encode_header(HEADER)
    assert len(data) == HEADER_BYTES
    assert data.hex() == (
        "736964656361721a0100000073737373737373737373737373737373"
        "03000000000000002900000000000000d204000000000000" + data[-4:].hex()
    )
    assert decode_header(data + b"frames") == HEADER


def test_a_frame_and_its_bytes() -> None:
    assert encode_frame(1, 7, b"seven").hex()[8:] == "05000000" + "01" + "0700000000000000" + (
        b"seven".hex()
    )


def test_a_header_of_a_later_version_is_told_from_a_damaged_one() -> None:
    data = bytearray(encode_header(HEADER))
    data[30] ^= 1
    with pytest.raises(Damaged, match="CRC"):
        decode_header(bytes(data))
    data[8] = 2
    with pytest.raises(NewerFormat, match="format 2, this version reads up to 1"):
        decode_header(bytes(data))
    with pytest.raises(Damaged, match="no header"):
        decode_header(b"#!/bin/sh".ljust(100))
    with pytest.raises(Damaged, match="no header"):
        decode_header(encode_header(HEADER)[:20])


def test_frames_are_found_with_their_places() -> None:
    found = scan(FRAMES, base=100)
    assert found.frames == [
        Frame(1, 7, b"seven", 100),
        Frame(2, 0, b"", 122),
        Frame(1, 8, b"8", 139),
    ]
    assert (found.used, found.is_damaged) == (len(FRAMES), False)
    assert found.frames[-1].end == 100 + len(FRAMES)
    assert len(scan(FRAMES, max_frames=2).frames) == 2


@given(st.integers(0, len(FRAMES) - 1))
def test_a_torn_end_is_no_damage(size: int) -> None:
    found = scan(FRAMES[:size])
    assert not found.is_damaged
    assert found.used == sum(FRAME_BYTES + len(frame.payload) for frame in found.frames) <= size


@given(st.integers(0, len(FRAMES) * 8 - 1))
def test_no_changed_bit_goes_unnoticed(bit: int) -> None:
    data = bytearray(FRAMES)
    data[bit // 8] ^= 1 << bit % 8
    whole = scan(FRAMES).frames
    found = scan(bytes(data))
    assert found.frames == whole[: len(found.frames)]
    assert len(found.frames) < len(whole)


def test_zeros_are_damage_and_no_frames() -> None:
    assert scan(bytes(100)).is_damaged
    assert behind_damage(bytes(100), 0) is None


def test_what_follows_a_damaged_payload_is_found() -> None:
    data = bytearray(FRAMES)
    data[FRAME_BYTES] ^= 1
    found = scan(bytes(data))
    assert (found.frames, found.is_damaged) == ([], True)
    assert behind_damage(bytes(data), 0) == 22
    data[4] ^= 1  # the length
    assert behind_damage(bytes(data), 0) is None
    assert behind_damage(b"short", 0) is None


def test_names_sort_by_age_and_others_are_left_alone() -> None:
    assert segment_name(26) == "000000000000001a.log"
    assert segment_ordinal("000000000000001a.log") == 26
    assert segment_name(255) < segment_name(256)
    for name in ["mark", "1a.log", "000000000000001a.log.corrupt", "00000000000000zz.log"]:
        assert segment_ordinal(name) is None
