"""What core believes of a hands that searches, which may be hostile."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.errors import ProtocolError
from sidecar.hands.foundlines import FoundLine, lines_from

ROW = [b"a/b", 3, 1, b"text", False]


def test_a_record_has_the_lines_that_were_written() -> None:
    assert lines_from([ROW], 4) == [FoundLine(b"a/b", 3, 1, b"text", False)]


@pytest.mark.parametrize(
    "record",
    [
        None,
        [],
        {},
        [ROW, None],
        [ROW[:4]],
        [["a/b", *ROW[1:]]],
        [[b"a\0b", *ROW[1:]]],
        [[b"a" * 8193, *ROW[1:]]],
        [[b"a", -1, 1, b"", False]],
        [[b"a", 1, True, b"", False]],
        [[b"a", 1, 1, b"more than wanted", False]],
        [[b"a", 1, 1, b"", 0]],
    ],
)
def test_a_record_that_is_none_breaks_the_protocol(record: Any) -> None:
    with pytest.raises(ProtocolError):
        lines_from(record, 4)
