"""Programs as people name them: by a UUID, or so much of its beginning as no other shares."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from sidecar.protocol.ids import show

if TYPE_CHECKING:
    from sidecar.client import ProcessInfo, RemoteProcess, Run

SHORT = 13  # characters: all of the milliseconds in which a program was started


def short(id: bytes, length: int = SHORT) -> str:
    """The beginning of an id."""
    return show(id)[:length].rstrip("-")


def short_length(ids: Iterable[bytes]) -> int:
    """How many characters tell these apart, at least `SHORT`."""
    texts = [show(id) for id in ids]
    length = SHORT
    while len({text[:length] for text in texts}) < len(texts):
        length += 1
    return length


async def find(run: Run, text: str) -> tuple[ProcessInfo, RemoteProcess]:
    """The program that `text` means. Raises `CallError`."""
    from sidecar.client import RemoteProcess
    from sidecar.client.processes import match_process

    info = match_process(await run.processes(), text)
    return info, RemoteProcess(run, info.id, info.pid)
