"""Exact replacements in a file of the sandbox.

edited = await run.files.edit("app.py", [Replacement("DEBUG = True", "DEBUG = False")])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sidecar.client.run import Run

Path = str | bytes


@dataclass(frozen=True, slots=True)
class Replacement:
    """`old` must stand there exactly `count` times (0: any number of times, but once at least);
    each becomes `new`."""

    old: str | bytes
    new: str | bytes
    count: int = 1


@dataclass(frozen=True, slots=True)
class Edited:
    """The file as it is now, and for each replacement how many places it changed and the line of
    the first of them, in the text that it left."""

    size: int
    sha256: bytes
    etag: str
    replaced: list[int]
    lines: list[int]


async def edit(
    run: Run, path: Path, replacements: Sequence[Replacement], if_match: bytes | None
) -> Edited:
    """See `Files.edit`."""
    arguments: dict[str, Any] = {"path": path, "edits": [asdict(item) for item in replacements]}
    if if_match is not None:
        arguments["if_match"] = if_match
    return Edited(**await run.call("files.edit", arguments))
