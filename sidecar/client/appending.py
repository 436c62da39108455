"""Bytes at the end of a file of the sandbox."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict, Unpack

from sidecar.protocol.limits import ANSWER_BYTES
from sidecar.protocol.streams import CONTENT
from sidecar.streaming import BytesSource

if TYPE_CHECKING:
    from sidecar.client.run import Run

SMALL = ANSWER_BYTES - 4096  # content that rides in the call itself


class AppendOptions(TypedDict, total=False):
    """`create`: make a missing file, which is so unless told, with the permissions `mode`;
    `parents`: and its directories. `size`: the file must have so many bytes before."""

    create: bool
    parents: bool
    mode: int
    size: int


@dataclass(frozen=True, slots=True)
class Appended:
    """Where the bytes lie, and what the file is with them. `sha256` is of what was added."""

    offset: int
    added: int
    sha256: bytes
    size: int
    etag: str


async def append(
    run: Run, path: str | bytes, content: bytes, **options: Unpack[AppendOptions]
) -> Appended:
    """See `Files.append`."""
    arguments = {"path": path, **options}
    if len(content) <= SMALL:
        arguments["content"] = content
    async with run.open("files.append", arguments) as call:
        if len(content) > SMALL:
            run.send(call, CONTENT, BytesSource(content))
        return Appended(**await call.wait())
