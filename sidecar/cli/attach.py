"""`sidecar attach`: come back to a program that runs."""

from __future__ import annotations

import click

from sidecar.cli.detachkeys import DEFAULT, parse_keys
from sidecar.cli.exec import finish
from sidecar.cli.output import fail_usage
from sidecar.cli.target import Target, target_options


@click.command()
@click.argument("id", metavar="ID")
@click.option("-n", "--no-stdin", is_flag=True, help="Only look: do not read standard input.")
@click.option(
    "--from", "start", type=click.IntRange(0), metavar="OFFSET", help="First print it from here."
)
@click.option(
    "--detach-keys",
    default=DEFAULT,
    show_default=True,
    metavar="KEYS",
    help='At a terminal: leave it again; "" for none.',
)
@target_options
def attach(target: Target, id: str, no_stdin: bool, start: int | None, detach_keys: str) -> int:
    """Be at a program again: what it prints from now on comes here, what is typed goes there, and
    its exit status is ours. Leaving ends nothing there: at a terminal by Ctrl-P Ctrl-Q, else by
    Ctrl-C.

    \b
    Examples:
      sidecar attach 0190b6c2-7d3f
      sidecar attach --no-stdin 0190b6c2
      sidecar attach --from 0 0190b6c2      everything that it printed, first

    IDs are in `sidecar ps`. Its terminal gets the size of ours, and full-screen programs draw
    themselves anew. 125 is the status if we left, or sidecar itself failed.
    """
    from sidecar.cli.terminal import come_back

    try:
        keys = parse_keys(detach_keys)
    except ValueError as error:
        raise fail_usage(f"--detach-keys: {error}") from None
    return finish(lambda: come_back(target, id, keys, start=start, has_input=not no_stdin))
