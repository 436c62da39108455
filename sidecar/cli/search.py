"""`sidecar search`: lines that match, in the files of the workspace, told as grep(1) tells them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from sidecar.cli.output import complain, explain, fail_usage, show_json, visible, wire_path
from sidecar.cli.target import Target, on_run, target_options
from sidecar.errors import CallError, ChannelError, SettingsError

if TYPE_CHECKING:
    from sidecar.client import Found, FoundLine, Run
    from sidecar.client.searching import SearchOptions

NONE = 1  # exit status: no line matched
FAILED = 2  # or not all could be looked at, which is worse
PATH, NUMBER, MARK = "35", "32", "36"  # colours as of grep (ECMA-48, SGR)
LINES = click.IntRange(0, 100)


@click.command()
@click.argument("pattern")
@click.argument("path", default="")
@click.option("-i", "--ignore-case", is_flag=True, help="Upper and lower case are the same.")
@click.option("-F", "--fixed", is_flag=True, help="PATTERN is plain text, no expression.")
@click.option(
    "-g", "--glob", multiple=True, metavar="GLOB", help="Only files that it names, as '*.py'."
)
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Not these, as in .gitignore.")
@click.option("--no-ignore", is_flag=True, help="Also what .gitignore files leave out, and .git.")
@click.option("-A", "--after", type=LINES, metavar="N", help="Lines after each that matches.")
@click.option("-B", "--before", type=LINES, metavar="N", help="Lines before each.")
@click.option("-C", "--context", type=LINES, default=0, metavar="N", help="Both.")
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=1000,
    show_default=True,
    metavar="N",
    help="Stop after so many lines.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@target_options
def search(
    target: Target,
    pattern: str,
    path: str,
    ignore_case: bool,
    fixed: bool,
    glob: tuple[str, ...],
    exclude: tuple[str, ...],
    no_ignore: bool,
    after: int | None,
    before: int | None,
    context: int,
    limit: int,
    as_json: bool,
) -> int:
    """Search the files below PATH (default: the workspace), or one file, for a regular
    expression. What .gitignore files leave out is passed over, and so are binary files.

    \b
    Examples:
      sidecar search 'TODO|FIXME'
      sidecar search -i -C 2 timeout src -g '*.py'
      sidecar search -F 'a[0]' --json | jq -r .path | sort -u

    Exit status, as of grep: 0 if lines were found, 1 if none, 2 if something went wrong or could
    not be read. In JSON a text that is not UTF-8 is {"base64": "..."}; column 0 marks a line that
    only stands near one that matches.
    """
    if not isinstance(wire_path(pattern), str):
        raise fail_usage("PATTERN has to be UTF-8")
    options: SearchOptions = {
        "ignore_case": ignore_case,
        "fixed": fixed,
        "glob": [wire_path(item) for item in glob],
        "exclude": [wire_path(item) for item in exclude],
        "ignore": "none" if no_ignore else "git",
        "after": context if after is None else after,
        "before": context if before is None else before,
        "limit": limit,
    }

    async def verb(run: Run) -> int:
        found = await run.files.search(pattern, wire_path(path), **options)
        if as_json:
            _show_json(found)
        else:
            _show(found, has_context=options["after"] > 0 or options["before"] > 0)
        return _status(found, limit)

    try:
        return on_run(target, verb)
    except (CallError, ChannelError, SettingsError) as error:
        explain(error)
        return FAILED


def _show_json(found: Found) -> None:
    for line in found.lines:
        show_json(
            {
                "path": line.path,
                "line": line.number,
                "column": line.column,
                "text": line.text,
                "cut": line.is_cut,
            }
        )


def _show(found: Found, *, has_context: bool) -> None:
    """With context, `--` stands between lines that are not neighbours."""
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    before: FoundLine | None = None
    for line in found.lines:
        if has_context and before is not None and not _are_neighbours(before, line):
            print(_in_colour("--", MARK, coloured))
        print("".join(_parts(line, coloured)))
        before = line


def _are_neighbours(one: FoundLine, other: FoundLine) -> bool:
    return one.path == other.path and one.number + 1 == other.number


def _parts(line: FoundLine, coloured: bool) -> Iterator[str]:
    """`PATH:LINE:TEXT`, or `PATH-LINE-TEXT` of a line that only stands near."""
    mark = _in_colour(":" if line.is_match else "-", MARK, coloured)
    yield _in_colour(visible(os.fsdecode(line.path), sys.stdout), PATH, coloured)
    yield mark
    yield _in_colour(str(line.number), NUMBER, coloured)
    yield mark
    text = os.fsdecode(line.text)
    yield visible(text.expandtabs(), sys.stdout) if sys.stdout.isatty() else text


def _in_colour(text: str, colour: str, coloured: bool) -> str:
    return f"\x1b[{colour}m{text}\x1b[m" if coloured else text


def _status(found: Found, limit: int) -> int:
    if found.truncated == "limit":
        complain(f"there are more matches than --limit {limit}, which may be up to 10000")
    elif found.truncated == "bytes":
        complain("more matches than one answer can hold: search parts of the tree")
    if found.unreadable:
        complain(f"{found.unreadable} files or directories could not be read")
        return FAILED
    return 0 if found.lines else NONE
