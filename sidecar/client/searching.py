r"""Lines that match, in the files of the sandbox.

found = await run.files.search(r"def \w+_test", "src", glob=["*.py"])
for line in found.lines:
    print(line.path, line.number, line.text)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

if TYPE_CHECKING:
    from sidecar.client.run import Run

Path = str | bytes


class SearchOptions(TypedDict, total=False):
    """Each is optional."""

    fixed: bool  # the pattern is plain text
    ignore_case: bool
    glob: Sequence[Path]  # only files that one of these names; without a slash: at any depth
    exclude: Sequence[Path]  # patterns as in .gitignore
    ignore: Literal["none", "git"]  # default: git, what .gitignore files leave out is not searched
    before: int  # lines shown before and after each that matches
    after: int
    limit: int  # lines that match, default 1,000
    line_bytes: int  # shown of each line, default 512


@dataclass(frozen=True, slots=True)
class FoundLine:
    """A line that matches, or with `column` 0 one that stands near it.

    `path` is good for other commands; it and `text` are bytes where they are not UTF-8. `column`
    is of the first match, in bytes, from 1. `is_cut`: the line goes on.
    """

    path: str | bytes
    number: int
    column: int
    text: str | bytes
    is_cut: bool

    @property
    def is_match(self) -> bool:
        return self.column > 0


@dataclass(frozen=True, slots=True)
class Found:
    """Lines sorted by path and number, and how they were found.

    `truncated`: `limit` or `bytes` if there are more. `searched`: files, None if it was not
    searched to the end. `matched`: files of these lines. `unreadable`: files and directories
    that could not be looked into, as far as is known.
    """

    lines: list[FoundLine]
    engine: Literal["ripgrep", "python"]
    truncated: Literal["limit", "bytes"] | None
    searched: int | None
    matched: int
    unreadable: int


async def search(run: Run, pattern: str, path: Path, **options: Unpack[SearchOptions]) -> Found:
    """See `Files.search`."""
    arguments: dict[str, Any] = {"pattern": pattern, "path": path, **options}
    for name in ("glob", "exclude"):
        if name in arguments:
            arguments[name] = list(arguments[name])
    answer = await run.call("files.search", arguments)
    lines = [FoundLine(*row) for row in answer.pop("lines")]
    return Found(lines=lines, **answer)
