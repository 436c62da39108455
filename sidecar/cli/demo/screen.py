"""Where the tour tells its story: in colour on a terminal, in plain lines elsewhere.

What the package logs meanwhile belongs to it: a cut connection, for instance, is told there.
A step that may take more than a second is shown as busy, with a clock on a terminal.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from sidecar.cli.demo.report import Line

HEADINGS = ("", "name", "promise", "measured")


class Screen:
    """The story on standard error (`--json` leaves standard output to the JSON) or output."""

    def __init__(self, *, stderr: bool = False) -> None:
        self._console = _Console(stderr=stderr, highlight=False, markup=False, soft_wrap=True)

    def title(self, text: str) -> None:
        """What comes next."""
        self._console.print(f"\n{text}", style="bold")

    def say(self, text: str) -> None:
        """What was found."""
        self._console.print(f"  {text}")

    def output(self, seconds: float, text: str) -> None:
        """A line that a program printed, `seconds` after its start."""
        self._console.print(f"  {seconds:6.2f} s  {text}", style="dim")

    @contextmanager
    def logging(self) -> Iterator[None]:
        """Show what this process logs, for the length of the block."""
        handler = _Handler(self)
        root = logging.getLogger()
        root.addHandler(handler)
        try:
            yield
        finally:
            root.removeHandler(handler)

    @contextmanager
    def busy(self, what: str) -> Iterator[None]:
        """`what` goes on for the length of the block."""
        if not self._console.is_terminal:
            self.say(f"{what} ...")
            yield
            return
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=self._console, transient=True) as progress:
            progress.add_task(what, total=None)
            yield

    def table(self, lines: Sequence[Line]) -> None:
        """The end of the story: each promise, its figure, and whether it held."""
        if self._console.is_terminal:
            self._console.print(_drawn(lines))
            return
        cells = [HEADINGS, *(_cells(line) for line in lines)]
        widths = [max(len(row[n]) for row in cells) for n in range(len(HEADINGS))]
        self._console.print()
        for row in cells:
            columns = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self._console.print("  ".join(columns).rstrip())


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Nobody reads any more: rich would exit, from wherever it was called."""
        raise BrokenPipeError


class _Handler(logging.Handler):
    def __init__(self, screen: Screen) -> None:
        super().__init__(logging.WARNING)
        self._screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        self._screen.say(f"{record.levelname.lower()}: {record.getMessage()}")


def _cells(line: Line) -> tuple[str, str, str, str]:
    return line.verdict, line.name, line.promise, line.figure


def _drawn(lines: Sequence[Line]) -> Table:
    table = Table(*HEADINGS)
    for line in lines:
        table.add_row(*_cells(line), style=None if line.ok else "bold red")
    return table
