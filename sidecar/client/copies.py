"""Copies within the sandbox."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sidecar.client.run import Run

Path = str | bytes


@dataclass(frozen=True, slots=True)
class Copied:
    """How many entries were copied, and how many bytes of content.

    `skipped` has paths below the source that were left out, and the code of the reason, up to
    1000 of `skipped_count`.
    """

    copied: int
    bytes: int
    skipped: list[tuple[Path, str]]
    skipped_count: int


async def copy(
    run: Run, source: Path, target: Path, *, recursive: bool = False, replace: bool = True
) -> Copied:
    """See `Files.copy`."""
    arguments = {"source": source, "target": target, "recursive": recursive, "replace": replace}
    answer = await run.call("files.copy", arguments)
    skipped = [(path, code) for path, code in answer["skipped"]]
    return Copied(answer["copied"], answer["bytes"], skipped, answer["skipped_count"])
