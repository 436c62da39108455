"""A progress bar on stderr, where that is a terminal; nothing anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sidecar.cli.output import visible


class Progress:
    """How far a transfer is, in bytes."""

    def __init__(self, show: Callable[[int], None] | None = None) -> None:
        self._show = show

    def at(self, done: int) -> None:
        if self._show is not None:
            self._show(done)


@contextmanager
def progress(name: str, size: int | None) -> Iterator[Progress]:
    """A bar for `size` bytes, or for how many there may be."""
    if not sys.stderr.isatty():
        yield Progress()
        return
    from rich import progress as bars
    from rich.console import Console
    from rich.markup import escape

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.DownloadColumn(),
        bars.TransferSpeedColumn(),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=Console(stderr=True), transient=True) as drawn:
        task = drawn.add_task(escape(visible(name, sys.stderr)), total=size)
        yield Progress(lambda done: drawn.update(task, completed=done))
