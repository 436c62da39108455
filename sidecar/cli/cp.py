"""`sidecar cp`: one file in or out. A path in the sandbox begins with a colon."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sidecar.cli.output import complain, fail_usage, wire_path
from sidecar.cli.target import Target, on_run, target_options

if TYPE_CHECKING:
    from sidecar.client import Run


@click.command()
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST")
@click.option("-p", "--parents", is_flag=True, help="Make the folders that DST needs (sandbox).")
@click.option("-v", "--verbose", is_flag=True, help="Say where it went, and how much.")
@target_options
def cp(target: Target, source: str, destination: str, parents: bool, verbose: bool) -> int:
    """Copy a file into the sandbox or out of it. A path there begins with a colon and is relative
    to the workspace; `-` is standard input or output.

    \b
    Examples:
      sidecar cp notes.txt :                to the root of the workspace
      sidecar cp :build/app.tar.gz .        here
      git diff | sidecar cp - :fix.patch    from standard input
      sidecar cp ./:odd :odd                a file here whose name begins with a colon

    The bytes are checked by digest. The target is replaced at once, never seen half done, and
    gets the mode of the source. For folders: tar c DIR | sidecar exec -- tar x
    """
    from sidecar.cli import transfer

    into = _is_into(source, destination)

    async def verb(run: Run) -> None:
        if into:
            where, size = await transfer.upload(
                run, source, wire_path(destination[1:]), parents=parents
            )
        else:
            where, size = await transfer.download(run, wire_path(source[1:]), destination)
        if verbose:
            complain(f"{source} -> {where}, {size} bytes")

    return on_run(target, verb)


def _is_into(source: str, destination: str) -> bool:
    """Which way; exactly one side is in the sandbox."""
    into = destination.startswith(":")
    if into and source.startswith(":"):
        raise fail_usage("both paths are in the sandbox: use `sidecar exec -- cp SRC DST`")
    if not into and not source.startswith(":"):
        raise fail_usage(
            "both paths are here: one in the sandbox begins with a colon, as in `sidecar cp"
            f" {source} :`"
        )
    return into
