"""`sidecar ls`: what a directory of the workspace holds."""

from __future__ import annotations

import os
import stat
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import click

from sidecar.cli.output import complain, fail_usage, show, show_json, wire_path
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
    "block": stat.S_IFBLK,
    "character": stat.S_IFCHR,
}


@click.command()
@click.argument("path", default="")
@click.option("-l", "--long", is_flag=True, help="Mode, size, time (UTC), name.")
@click.option("-R", "--recursive", is_flag=True, help="Everything below it, as paths.")
@click.option("--depth", type=click.IntRange(1, 4096), help="With -R: so many levels.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Leave out, as in .gitignore.")
@click.option("--git-ignore", is_flag=True, help="Leave out what .gitignore files do, and .git.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@target_options
def ls(
    target: Target,
    path: str,
    long: bool,
    recursive: bool,
    depth: int | None,
    exclude: tuple[str, ...],
    git_ignore: bool,
    as_json: bool,
) -> int:
    """List a directory of the workspace (default: its root), or one file.

    \b
    Examples:
      sidecar ls
      sidecar ls -l src
      sidecar ls -R --git-ignore --exclude '*.lock'
      sidecar ls --json | jq -r 'select(.type == "file") | .name'

    In JSON a name that is not UTF-8 is {"base64": "..."}; times are nanoseconds. A directory
    that cannot be entered is named on standard error; the exit status is 1 then.
    """
    if depth is not None and not recursive:
        raise fail_usage("--depth goes with -R")
    wanted = wire_path(path)

    async def verb(run: Run) -> int:
        status = 0
        found = run.files.scan(
            wanted,
            recursive=recursive,
            depth=depth,
            exclude=[wire_path(pattern) for pattern in exclude],
            ignore="git" if git_ignore else "none",
        )
        try:
            async for entry in found:
                _show(entry, long, as_json)
                if entry.error is not None:
                    complain(f"{os.fsdecode(entry.name)}: {entry.error.code}")
                    status = 1
        except CallError as error:
            if error.code is not Code.NOT_DIRECTORY:
                raise
            _show(await run.files.stat(wanted), long, as_json)
        return status

    return on_run(target, verb)


def _show(entry: FileEntry, long: bool, as_json: bool) -> None:
    if as_json:
        plain = asdict(replace(entry, error=None))
        known = {key: value for key, value in plain.items() if value is not None}
        if entry.error is not None:
            known["error"] = {"code": entry.error.code, "message": entry.error.message}
        show_json(known)
        return
    name = os.fsdecode(entry.name)
    if not long:
        show(name)
        return
    mode = stat.filemode(TYPES.get(entry.type, 0) | entry.mode)
    when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(entry.mtime_ns // 1_000_000_000))
    arrow = "" if entry.target is None else f" -> {os.fsdecode(entry.target)}"
    show(f"{mode} {entry.size:>12} {when} {name}{arrow}")
