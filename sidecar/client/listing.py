"""What there is in the sandbox: entries of directories and trees, and of paths one by one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sidecar.client.answered import mode_of, path_of, size_of, text_of, time_of
from sidecar.client.downloads import batches
from sidecar.errors import CallError
from sidecar.protocol.envelope import error_from

if TYPE_CHECKING:
    from sidecar.client.run import Run

Path = str | bytes
Ignore = Literal["none", "git"]


@dataclass(frozen=True, slots=True)
class FileEntry:
    """What a path is. `name` is bytes where it is not UTF-8; times are nanoseconds.

    `error`: why nothing is known of it (then its type is `unknown`), or why a directory cannot
    be entered. `sha256` is there if it was asked for.
    """

    name: str | bytes
    type: str
    size: int
    mode: int
    mtime_ns: int
    etag: str
    target: str | bytes | None = None
    sha256: bytes | None = None
    error: CallError | None = None

    @property
    def is_directory(self) -> bool:
        return self.type == "directory"


async def scan(run: Run, command: str, arguments: dict[str, Any]) -> AsyncIterator[FileEntry]:
    """All that `files.list` or `files.glob` tells, page by page."""
    after: Path | None = None
    while True:
        page = await run.call(
            command, arguments if after is None else {**arguments, "after": after}
        )
        for row in page["entries"]:
            yield entry(row.pop("name"), row)
        after = page.get("next")
        if after is None:
            return


async def stat_many(
    run: Run, paths: Sequence[Path], *, follow: bool, hash: bool
) -> AsyncIterator[FileEntry]:
    """Each path in its turn, with the error of what cannot be looked at."""
    for some in batches(paths):
        answer = await run.call("files.stat", {"paths": some, "follow": follow, "hash": hash})
        for row in answer["entries"]:
            yield entry(row.pop("path"), row)


def entry(name: Path, row: dict[str, Any]) -> FileEntry:
    """One row of an answer. Raises `internal` for one that makes no sense."""
    target = row.get("target")
    return FileEntry(
        name=path_of(name),
        type=text_of(row.get("type", "unknown")),
        size=size_of(row.get("size", 0)),
        mode=mode_of(row.get("mode", 0)),
        mtime_ns=time_of(row.get("mtime_ns", 0)),
        etag=text_of(row.get("etag", "")),
        target=None if target is None else path_of(target),
        sha256=row.get("sha256"),
        error=None if (error := row.get("error")) is None else error_from(error),
    )
