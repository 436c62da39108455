"""Progress bars on stderr, where that is a terminal; nothing anywhere else."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sidecar.cli.output import complain, visible
from sidecar.client.trees import Plan, Problem, Task, Teller

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

NAME_CELLS = 30  # of a terminal's width, for what is on its way


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
    with _bars() as drawn:
        task = drawn.add_task(_shown(name), total=size)
        yield Progress(lambda done: drawn.update(task, completed=done))


@contextmanager
def tree_progress(*, verbose: bool) -> Iterator[Teller]:
    """Bars for a tree: one for each transfer, and one for all of them. Problems are told as they
    come, and with `verbose` what was copied."""
    if not sys.stderr.isatty():
        yield Lines(complain, verbose=verbose)
        return
    with _bars() as drawn:

        def say(line: str) -> None:
            text = visible(f"sidecar: {line}", sys.stderr)
            drawn.console.print(text, markup=False, highlight=False, soft_wrap=True)

        yield TreeBars(drawn, say, verbose=verbose)


class Lines(Teller):
    """A line for each problem, and with `verbose` for what was copied."""

    def __init__(self, say: Callable[[str], None], *, verbose: bool) -> None:
        self._say = say
        self._verbose = verbose

    def copied(self, path: bytes) -> None:
        if self._verbose:
            self._say(os.fsdecode(path))

    def problem(self, problem: Problem) -> None:
        self._say(f"{os.fsdecode(problem.path)}: {problem.why}")


class TreeBars(Lines):
    """A bar for each transfer, below one for all of them."""

    def __init__(self, drawn: Bars, say: Callable[[str], None], *, verbose: bool) -> None:
        super().__init__(say, verbose=verbose)
        self.done = 0  # bytes of transfers that have ended
        self.tasks: dict[TaskID, int] = {}  # bytes of those that go on
        self._drawn = drawn
        self._files = self._all_files = 0
        self._total = drawn.add_task("looking at both trees", total=None)

    def planned(self, plan: Plan) -> None:
        self._all_files = plan.files
        self._drawn.update(self._total, total=plan.bytes)
        self.show_total()

    def began(self, path: bytes, files: int, size: int) -> Task:
        name = os.fsdecode(os.path.basename(path)) if files == 1 else f"{files} small files"
        task = self._drawn.add_task("  " + _shown(name), total=size)
        return _Bar(self, self._drawn, task, files, size)

    def ended(self, files: int, size: int) -> None:
        self._files += files
        self.done += size
        self.show_total()

    def show_total(self) -> None:
        words = f"{self._files}/{self._all_files} files"
        done = self.done + sum(self.tasks.values())
        self._drawn.update(self._total, completed=done, description=words)


class _Bar(Task):
    def __init__(self, all_: TreeBars, drawn: Bars, task: TaskID, files: int, size: int) -> None:
        self._all = all_
        self._drawn = drawn
        self._task = task
        self._files = files
        self._size = size

    def at(self, done: int) -> None:
        self._all.tasks[self._task] = done
        self._drawn.update(self._task, completed=done)
        self._all.show_total()

    def end(self) -> None:
        self._all.tasks.pop(self._task, None)
        self._drawn.remove_task(self._task)
        self._all.ended(self._files, self._size)


def _bars() -> Bars:
    from rich import progress as bars
    from rich.console import Console

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.DownloadColumn(),
        bars.TransferSpeedColumn(),
        bars.TimeRemainingColumn(),
    )
    return bars.Progress(*columns, console=Console(stderr=True), transient=True)


def _shown(name: str) -> str:
    """A name that may come from a sandbox, as rich takes it."""
    from rich.markup import escape

    shown = visible(name, sys.stderr)
    return escape(shown if len(shown) <= NAME_CELLS else shown[: NAME_CELLS - 1] + "…")
