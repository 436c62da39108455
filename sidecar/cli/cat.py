"""`sidecar cat`: the bytes of files, untouched and digest-checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sidecar.cli.output import FAILED, explain, wire_path
from sidecar.cli.target import Target, on_run, target_options
from sidecar.errors import CallError

if TYPE_CHECKING:
    from sidecar.client import Run


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@target_options
def cat(target: Target, paths: tuple[str, ...]) -> int:
    """Print files of the workspace, one after the other.

    \b
    Examples:
      sidecar cat README.md
      sidecar cat logs/build.gz | zcat

    A file that cannot be read is reported; the others are still printed, and the status is 1.
    """
    from sidecar.cli.piping import write_all

    async def verb(run: Run) -> int:
        status = 0
        for path in paths:
            try:
                async with run.files.open(wire_path(path)) as download:
                    async for chunk in download:
                        await write_all(1, chunk)
            except CallError as error:
                explain(error)
                status = FAILED
        return status

    return on_run(target, verb)
