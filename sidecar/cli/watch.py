"""`sidecar watch`: what changes in a directory of the workspace, as it happens."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from sidecar.cli.output import complain, show, show_json, wire_path
from sidecar.cli.target import Target, on_run, target_options

if TYPE_CHECKING:
    from sidecar.client import Batch, Run

SIGNS = {"added": "+", "modified": "~", "removed": "-"}
WHYS = {
    "overflow": "they came faster than the system keeps them",
    "slow reader": "they came faster than they were read",
    "gone": "the directory is not there any more; waiting for it",
    "replaced": "another directory has its name now, and is watched",
    "unreadable": "a directory may not be read",
    "restarted": "the sidecar was restarted",
}


@click.command()
@click.argument("path", default="")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="As in .gitignore; repeatable.")
@click.option("--git-ignore", is_flag=True, help="Leave out what .gitignore files do, and .git.")
@click.option("--flat", is_flag=True, help="Only the directory itself, not those below.")
@click.option(
    "--gather",
    type=click.FloatRange(0, 60),
    default=0.05,
    show_default=True,
    metavar="SECONDS",
    help="Collect changes for so long; of each path one is shown.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@target_options
def watch(
    target: Target,
    path: str,
    exclude: tuple[str, ...],
    git_ignore: bool,
    flat: bool,
    gather: float,
    as_json: bool,
) -> int:
    """Show what changes in a directory of the workspace (default: its root), until Ctrl-C.

    \b
    Examples:
      sidecar watch
      sidecar watch --git-ignore src
      sidecar watch --exclude '*.log' --exclude node_modules/
      sidecar watch --json | jq -r 'select(.kind == "removed") | .path'

    One line for each change: + added, ~ modified, - removed, and the path below PATH; that of a
    directory ends in a slash. Where changes may have been missed, stderr says so (with --json, a
    line with "lost"): then only `sidecar ls` knows what there is. What is moved is removed in
    one place and added in another.
    """

    async def verb(run: Run) -> None:
        async with run.files.watch(
            wire_path(path),
            recursive=not flat,
            exclude=[wire_path(pattern) for pattern in exclude],
            ignore="git" if git_ignore else "none",
            gather=gather,
        ) as watching:
            complain(f"watching {path or 'the workspace'}: Ctrl-C ends it")
            async for batch in watching:
                _show(batch, as_json)

    return on_run(target, verb)


def _show(batch: Batch, as_json: bool) -> None:
    if batch.lost is not None:
        _show_lost(batch, as_json)
    for change in batch.changes:
        if as_json:
            show_json({"kind": change.kind, "path": change.path, "type": change.type})
        else:
            slash = "/" if change.type == "directory" else ""
            show(f"{SIGNS[change.kind]} {os.fsdecode(change.path)}{slash}")


def _show_lost(batch: Batch, as_json: bool) -> None:
    assert batch.lost is not None
    if as_json:
        show_json({"lost": batch.lost, "paths": list(batch.paths)})
    where = ", ".join(os.fsdecode(path) for path in batch.paths)
    below = f" below {where}" if where else ""
    why = WHYS.get(batch.lost, batch.lost)
    complain(f"changes{below} may have been missed: {why}")
