"""`sidecar demo`: everything at work on this machine, and each promise checked.

It starts a hub, a sidecar and a controller in a temporary folder, works with them as a platform
would, cuts their connections and kills them on the way, and ends with a table of what was
measured. It exits with 0 only if all of it held.
"""

from __future__ import annotations

import click

# One for each line of the table. Literal, so that `--help` does not load the tour.
NAMES = (
    *("project", "tests", "live", "files", "recovery", "reconnect"),
    *("once", "status", "signal", "confined", "ports"),
    *("lines", "killed", "renewed", "numbered", "events"),
)


@click.command()
@click.option(
    "--json",
    "json_wanted",
    is_flag=True,
    help="Print the table as JSON; the story goes to standard error.",
)
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(NAMES),
    metavar="NAME",
    help=f"Check only this line, and what it builds on: {', '.join(NAMES)}. May be repeated.",
)
@click.option(
    "--break",
    "broken",
    type=click.Choice(NAMES),
    hidden=True,
    envvar="SIDECAR_DEMO_BREAK",
    help="Break this promise, to see that it is noticed.",
)
def demo(json_wanted: bool, only: tuple[str, ...], broken: str | None) -> int:
    """Show it at work on this machine, and check each promise.

    Starts a hub, a sidecar and a controller in a temporary folder, and kills two of them. Takes
    about a minute, needs git, and leaves nothing behind. Exit status: 0 if every promise held, 1
    if not.
    """
    from sidecar.cli.demo.run import show  # only now: it loads hub and client

    return show(json_wanted=json_wanted, only=only, broken=broken)
