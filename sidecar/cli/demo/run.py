"""Takes the tour in a temporary folder and says how it went."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Collection
from pathlib import Path

from sidecar.cli import loop
from sidecar.cli.demo.project import find_git
from sidecar.cli.demo.report import Line, as_json, failures
from sidecar.cli.demo.screen import Screen
from sidecar.cli.demo.tour import take_tour

FAILED = 1


def show(*, json_wanted: bool, only: Collection[str], broken: str | None) -> int:
    """The exit status: 0 if every promise held, 1 if not, 128 and more after a signal. Raises
    `DemoError` if the tour could not be taken to its end."""
    find_git()
    screen = Screen(stderr=json_wanted)
    began = time.monotonic()
    lines: list[Line] = []
    with tempfile.TemporaryDirectory(prefix="sidecar-demo-") as folder, screen.logging():

        async def tour() -> None:
            lines.extend(await take_tour(Path(folder), screen, broken=broken, only=only))

        status = loop.run(tour)
    if not lines:
        return status
    seconds = time.monotonic() - began
    if json_wanted:
        print(json.dumps(as_json(lines, seconds), indent=2))
    else:
        screen.table(lines)
    return _conclude(lines, screen, seconds)


def _conclude(lines: list[Line], screen: Screen, seconds: float) -> int:
    failed = failures(lines)
    for sentence in failed:
        print(sentence, file=sys.stderr)
    if failed:
        return FAILED
    screen.say(f"Every promise held: {len(lines)} of {len(lines)}, in {seconds:.1f} s.")
    return 0
