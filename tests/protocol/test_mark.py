"""The mark: when numbers go on, and its bytes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sidecar.protocol.mark import BLOCK_BYTES, NO_BOOT, Mark, decode_mark, encode_mark
from sidecar.protocol.segments import Damaged, NewerFormat

BOOT, OTHER = b"b" * 16, b"o" * 16
OPEN = Mark(b"s" * 16, BOOT)
CLOSED = replace(OPEN, is_clean=True, end=(3, 500))
DEGRADED = replace(OPEN, is_degraded=True)


@pytest.mark.parametrize(
    "mark, boot, end, goes_on",
    [
        pytest.param(OPEN, BOOT, (3, 500), True, id="killed"),
        pytest.param(OPEN, OTHER, (3, 500), False, id="power cut"),
        pytest.param(replace(OPEN, boot=NO_BOOT), NO_BOOT, (3, 500), False, id="boot unknown"),
        pytest.param(CLOSED, BOOT, (3, 500), True, id="closed"),
        pytest.param(CLOSED, OTHER, (3, 500), True, id="closed and rebooted"),
        pytest.param(CLOSED, OTHER, (3, 499), False, id="closed, and its end went"),
        pytest.param(CLOSED, BOOT, (2, 500), False, id="closed, and a file went"),
        pytest.param(DEGRADED, BOOT, (3, 500), False, id="degraded"),
    ],
)
def test_numbers_go_on_only_if_nothing_can_be_missing(
    mark: Mark, boot: bytes, end: tuple[int, int], goes_on: bool
) -> None:
    assert mark.goes_on(boot=boot, end=end) is goes_on


@pytest.mark.parametrize("mark", [OPEN, CLOSED, DEGRADED])
def test_a_mark_is_a_block_that_says_the_same_when_it_is_read(mark: Mark) -> None:
    data = encode_mark(mark)
    assert len(data) == BLOCK_BYTES
    assert len(data.rstrip(b"\0")) <= 512, "more than a disk writes at once"
    assert decode_mark(data) == mark


def test_a_torn_mark_is_none() -> None:
    torn = encode_mark(CLOSED)[:40] + encode_mark(OPEN)[40:]
    with pytest.raises(Damaged, match="CRC"):
        decode_mark(torn)
    with pytest.raises(Damaged, match="no mark"):
        decode_mark(b"")


def test_a_mark_of_a_later_version_is_not_guessed_at() -> None:
    data = bytearray(encode_mark(OPEN))
    data[8] = 2
    with pytest.raises(NewerFormat):
        decode_mark(bytes(data))
