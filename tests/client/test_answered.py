"""Answers about files that no file can have: they end in a coded error, and reach nobody."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sidecar.client import CallError, Code, Run
from sidecar.client.downloads import read_many
from sidecar.client.listing import entry
from sidecar.client.watch import Batch, Change, _batch_of

ROW = {"type": "file", "size": 4, "mode": 0o644, "mtime_ns": -1, "etag": "1-2-3-4"}


def test_an_entry_has_what_was_answered() -> None:
    found = entry(b"\xff", {**ROW, "target": b"t"})
    assert (found.name, found.size, found.mtime_ns, found.target) == (b"\xff", 4, -1, b"t")


@pytest.mark.parametrize(
    "lie",
    [
        {"size": -1},
        {"size": "4"},
        {"size": True},
        {"size": 1 << 63},
        {"mode": 0o10000},
        {"mode": None},
        {"mtime_ns": 1 << 63},
        {"mtime_ns": 1.5},
        {"type": ["file"]},
        {"etag": b"1"},
        {"target": 7},
    ],
)
def test_an_entry_that_no_file_can_have_is_an_error(lie: dict[str, Any]) -> None:
    with pytest.raises(CallError) as failed:
        entry("name", {**ROW, **lie})
    assert failed.value.code is Code.INTERNAL


def run_that_answers(files: list[dict[str, Any]]) -> Run:
    """Its stream has no end."""

    async def wait() -> dict[str, Any]:
        return {"files": files}

    async def receive() -> bytes:
        raise AssertionError("asked for bytes")

    receiver = SimpleNamespace(receive=receive)
    call = SimpleNamespace(wait=wait, receiver=lambda n: receiver)

    @asynccontextmanager
    async def open(command: str, arguments: dict[str, Any]) -> AsyncIterator[Any]:
        yield call

    return cast(Run, SimpleNamespace(open=open))


@pytest.mark.parametrize(
    "files",
    [
        [{"path": "a", "length": 1 << 40}, {"path": "b", "length": -(1 << 40)}],
        [{"path": "a", "length": 4}],
        [{"path": "a", "length": 0}] * 3,
        [{"path": 7, "content": b""}, {"path": "b", "content": b""}],
    ],
)
async def test_rows_that_do_not_fit_the_question_are_an_error(files: list[dict[str, Any]]) -> None:
    with pytest.raises(CallError) as failed:
        async for _ in read_many(run_that_answers(files), ["a", "b"], allow_change=False, most=99):
            pass
    assert failed.value.code is Code.INTERNAL


def test_a_batch_of_changes_has_what_was_told() -> None:
    told = {"changes": [["added", b"\xff", "file"]]}
    assert _batch_of(told) == Batch((Change("added", b"\xff", "file"),))
    assert _batch_of({"lost": "gone", "paths": ["a"]}) == Batch(lost="gone", paths=("a",))


@pytest.mark.parametrize(
    "told",
    [
        {"changes": [["moved", "a", "file"]]},
        {"changes": [["added", 7, "file"]]},
        {"changes": [["added", "a", None]]},
        {"changes": [["added", "a"]]},
        {"lost": "gone", "paths": [7]},
    ],
)
def test_a_batch_that_is_none_is_an_error(told: dict[str, Any]) -> None:
    with pytest.raises((CallError, ValueError, TypeError)):
        _batch_of(told)
