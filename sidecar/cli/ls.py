"""`sidecar ls`: what a directory of the workspace holds."""

from __future__ import annotations

import os
import stat
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from sidecar.cli.output import show, show_json, wire_path
from sidecar.cli.target import Target, on_run, target_options
from sidecar.errors import CallError, Code

if TYPE_CHECKING:
    from sidecar.client import FileEntry, Run

TYPES = {
    "file": stat.S_IFREG,
    "directory": stat.S_IFDIR,
    "symlink": stat.S_IFLNK,
    "fifo": stat.S_IFIFO,
    "socket": stat.S_IFSOCK,
    "block_device": stat.S_IFBLK,
    "char_device": stat.S_IFCHR,
}


@click.command()
@click.argument("path", default="")
@click.option("-l", "--long", is_flag=True, help="Mode, size, time (UTC), name.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@target_options
def ls(target: Target, path: str, long: bool, as_json: bool) -> int:
    """List a directory of the workspace (default: its root), or one file.

    \b
    Examples:
      sidecar ls
      sidecar ls -l src
      sidecar ls --json | jq -r 'select(.type == "file") | .name'

    In JSON a name that is not UTF-8 is {"base64": "..."}; times are nanoseconds.
    """
    wanted = wire_path(path)

    async def verb(run: Run) -> None:
        try:
            async for entry in run.files.scan(wanted):
                _show(entry, long, as_json)
        except CallError as error:
            if error.code is not Code.NOT_DIRECTORY:
                raise
            _show(await run.files.stat(wanted), long, as_json)

    return on_run(target, verb)


def _show(entry: FileEntry, long: bool, as_json: bool) -> None:
    if as_json:
        show_json({key: value for key, value in asdict(entry).items() if value is not None})
        return
    name = os.fsdecode(entry.name)
    if not long:
        show(name)
        return
    mode = stat.filemode(TYPES.get(entry.type, 0) | entry.mode)
    when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(entry.mtime_ns // 1_000_000_000))
    arrow = "" if entry.target is None else f" -> {os.fsdecode(entry.target)}"
    show(f"{mode} {entry.size:>12} {when} {name}{arrow}")
