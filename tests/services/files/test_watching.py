"""What core believes of a hands that watches, which may be hostile."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sidecar.context import CallContext
from sidecar.errors import ProtocolError
from sidecar.hands.fileinterface import Tool
from sidecar.hands.pipeio import DIRECT
from sidecar.services.files.watching import _Passing, checked


@pytest.mark.parametrize(
    "record, travels",
    [
        ({"changes": []}, {"changes": []}),
        (
            {"changes": [["added", b"a/b", "file"], ["removed", b"\xff", "unknown"]]},
            {"changes": [["added", "a/b", "file"], ["removed", b"\xff", "unknown"]]},
        ),
        ({"lost": "overflow"}, {"lost": "overflow"}),
        ({"lost": "unreadable", "paths": [b"a"]}, {"lost": "unreadable", "paths": ["a"]}),
    ],
)
def test_a_record_travels_as_what_it_is(record: Any, travels: Any) -> None:
    assert checked(record) == travels


@pytest.mark.parametrize(
    "record",
    [
        None,
        {},
        [["added", b"a", "file"]],
        {"changes": [], "more": 1},
        {"changes": {}},
        {"changes": [["moved", b"a", "file"]]},
        {"changes": [["added", b"a", "secret"]]},
        {"changes": [["added", "a", "file"]]},
        {"changes": [["added", b"a"]]},
        {"changes": [["added", b"", "file"]]},
        {"changes": [["added", b"/etc/passwd", "file"]]},
        {"changes": [["added", b"a/../../b", "file"]]},
        {"changes": [["added", b"a\0b", "file"]]},
        {"changes": [["added", b"a" * 9000, "file"]]},
        {"lost": "whatever hands likes to say"},
        {"lost": "unreadable", "paths": [b"a"] * 17},
        {"lost": "unreadable", "paths": [b".."]},
        {"lost": "gone", "paths": [], "more": 1},
    ],
)
def test_anything_else_breaks_the_protocol(record: Any) -> None:
    with pytest.raises(ProtocolError):
        checked(record)


async def test_what_hands_says_at_the_end_is_not_answered() -> None:
    async def result() -> dict[str, Any]:
        return {"anything": "that hands likes to say"}

    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    os.close(writer)
    ctx = cast(CallContext, SimpleNamespace(hands=SimpleNamespace(pipe_io=DIRECT)))
    try:
        tool = cast(Tool, SimpleNamespace(fd=reader, result=result))
        assert await _Passing(ctx, tool).run() == {}
    finally:
        os.close(reader)
