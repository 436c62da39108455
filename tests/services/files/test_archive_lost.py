"""Archives while connections are lost, sidecars restarted, and hands says what it never would."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from stack import Stack

from sidecar.client import Run
from sidecar.errors import CallError, Code
from sidecar.services.files.archive import _told

SIZE = 12_000_000
COUNTS = ("entries", "bytes", "refused_count")


@pytest.fixture
def large(place_stack: Stack) -> bytes:
    """What lies in `tree/large`."""
    content = os.urandom(1_000_000) * (SIZE // 1_000_000)
    (place_stack.workspace / "tree").mkdir()
    (place_stack.workspace / "tree" / "large").write_bytes(content)
    return content


@pytest.mark.slow
async def test_an_archive_goes_on_over_lost_connections(
    place: tuple[Path, Run], place_stack: Stack, large: bytes
) -> None:
    _, run = place
    tar, next_loss = bytearray(), SIZE // 4
    async with run.files.archive("tree") as archive:
        async for chunk in archive:
            tar += chunk
            if len(tar) > next_loss:
                next_loss += SIZE // 2
                await place_stack.lose("sandbox:demo", "control:me")
    with tarfile.open(fileobj=io.BytesIO(tar)) as found:
        file = found.extractfile("large")
        assert file is not None
        assert hashlib.sha256(file.read()).digest() == hashlib.sha256(large).digest()


@pytest.mark.slow
async def test_an_extraction_goes_on_over_lost_connections(
    place: tuple[Path, Run], place_stack: Stack, large: bytes
) -> None:
    folder, run = place
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        made.add(folder / "tree", "tree")
    tar = buffer.getvalue()

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(tar), 500_000):
            if start == 3_000_000:
                await place_stack.lose("sandbox:demo", "control:me")
            yield tar[start : start + 500_000]

    told = await run.files.extract(chunks(), "copy")
    assert (told.entries, told.bytes) == (2, len(large))
    assert (folder / "copy" / "tree" / "large").read_bytes() == large


@pytest.mark.parametrize(
    "outcome",
    [
        {},
        {"entries": -1, "bytes": 0, "refused_count": 0, "refused": []},
        {"entries": 1, "bytes": "0", "refused_count": 0, "refused": []},
        {"entries": 1, "bytes": 0, "refused_count": 0, "refused": {}},
        {"entries": 1, "bytes": 0, "refused_count": 0, "refused": [["a", "why"]]},
        {"entries": 1, "bytes": 0, "refused_count": 0, "refused": [[b"a", 1]]},
        {"entries": 1, "bytes": 0, "refused_count": 0, "refused": [[b"a", "why", 1]]},
        {"entries": 1, "bytes": 0, "refused_count": 0, "refused": [[b"a", "w" * 501]]},
        {"entries": 1, "bytes": 0, "refused_count": 0, "refused": [[b"a", "why"]] * 1001},
    ],
    ids=range(9),
)
def test_a_result_that_hands_never_gives(outcome: dict[str, Any]) -> None:
    with pytest.raises(CallError) as caught:
        _told(outcome, COUNTS, "refused")
    assert caught.value.code is Code.HANDS_AWAY


def test_a_result_as_it_travels() -> None:
    outcome = {"entries": 1, "bytes": 2, "refused_count": 3, "refused": [[b"a", "why"]], "more": 1}
    assert _told(outcome, COUNTS, "refused") == {
        **{"entries": 1, "bytes": 2, "refused_count": 3},
        "refused": [["a", "why"]],
    }
