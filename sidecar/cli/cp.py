"""`sidecar cp`: files and folders in or out. A path in the sandbox begins with a colon."""

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
@click.option("-r", "--recursive", is_flag=True, help="A folder with all that is in it.")
@click.option("-p", "--parents", is_flag=True, help="Make the folders that DST needs (sandbox).")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Leave out, as in .gitignore.")
@click.option("--git-ignore", is_flag=True, help="Leave out what .gitignore names, and .git.")
@click.option("--checksum", is_flag=True, help="Pass over what has the same SHA-256, not time.")
@click.option("--all-links", is_flag=True, help="Copy also links that lead out of the folder.")
@click.option("-v", "--verbose", is_flag=True, help="Say what was copied, and how much.")
@target_options
def cp(
    target: Target,
    source: str,
    destination: str,
    recursive: bool,
    parents: bool,
    exclude: tuple[str, ...],
    git_ignore: bool,
    checksum: bool,
    all_links: bool,
    verbose: bool,
) -> int:
    """Copy a file into the sandbox or out of it, or with -r a folder. A path there begins with a
    colon and is relative to the workspace; `-` is standard input or output.

    \b
    Examples:
      sidecar cp notes.txt :                to the root of the workspace
      sidecar cp :build/app.tar.gz .        here
      git diff | sidecar cp - :fix.patch    from standard input
      sidecar cp ./:odd :odd                a file here whose name begins with a colon

    \b
    A folder goes where cp(1) would put it:
      sidecar cp -r src :                   to src in the workspace
      sidecar cp -r src :app                to app/src if there is an app, else it becomes app
      sidecar cp -r src/. :app              what is in src to app, which is made if missing
      sidecar cp -r --git-ignore . :        what is in this folder, without what git leaves out
      sidecar cp -r :logs .                 to ./logs

    The bytes are checked by digest. A target is replaced at once, never seen half done, and has
    the mode and the time of the source; a folder here that was there before gives nobody more
    rights than it gave. Nothing is removed.

    After Ctrl-C, or when the connection was lost, the same command goes on: in a folder, what
    has the same size and time as the source is passed over, and a large file goes on where it
    stopped. What is there of it lies beside the target meanwhile, as .NAME.*.sidecar-part.

    In a folder, links are copied as links and never followed. Devices, sockets, FIFOs, links that
    lead out of it and what cannot be read are named and passed over; the status is 1 then.
    """
    from sidecar.cli import transfer, treecopy

    into = _is_into(source, destination)
    if not recursive and (exclude or git_ignore or checksum or all_links):
        raise fail_usage("--exclude, --git-ignore, --checksum and --all-links go with -r")
    options = treecopy.options(exclude, git_ignore, checksum, all_links)

    async def verb(run: Run) -> int | None:
        with transfer.saying_how_to_go_on():
            here, there = (source, destination) if into else (destination, source)
            path = wire_path(there[1:])
            if recursive and here != "-":
                copy = treecopy.TreeCopy(run, here, path, options, verbose)
                status = await (copy.upload(parents) if into else copy.download())
                if status is not None:
                    return status
            if into:
                where, size = await transfer.upload(run, source, path, parents=parents)
            else:
                where, size = await transfer.download(run, path, destination)
        if verbose:
            complain(f"{source} -> {where}, {size} bytes")
        return None

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
