"""What `sidecar dev` shows: one line for each thing that happens.

With colours on a terminal (not with NO_COLOR), plain lines elsewhere. What comes from the
sandbox is shown, never obeyed: no markup, no control characters.
"""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.text import Text

from sidecar.cli.output import visible

NAME_WIDTH = 18


class Screen:
    """Writes to stdout, line by line."""

    def __init__(self) -> None:
        # Wide where nobody looks: a program that reads our lines wants them whole.
        self._console = Console(highlight=False, soft_wrap=True)

    def title(self, text: str) -> None:
        self._print(Text(text, style="bold"))

    def hint(self, text: str) -> None:
        self._print(Text(text, style="dim"))

    def event(self, name: str, text: str, when: float) -> None:
        """Something of the run's own series of events."""
        self._line(when, name, text, "cyan")

    def note(self, name: str, text: str) -> None:
        """Something that the sidecar says in its log."""
        self._line(time.time(), name, text, "dim")

    def warn(self, text: str) -> None:
        self._line(time.time(), "!", text, "yellow")

    def _line(self, when: float, name: str, text: str, style: str) -> None:
        clock = time.strftime("%H:%M:%S", time.localtime(when)) + f".{int(when * 1000) % 1000:03}"
        line = Text()
        line.append(f"{clock}  ", style="dim")
        line.append(f"{visible(name, sys.stdout):<{NAME_WIDTH}}  ", style=style)
        line.append(visible(text, sys.stdout))
        self._print(line)

    def _print(self, text: Text) -> None:
        self._console.print(text)
        self._console.file.flush()
