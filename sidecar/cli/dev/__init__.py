"""`sidecar dev`: hub, sidecar and everything between them, on one folder of this machine."""

from __future__ import annotations

import os
import signal
import tempfile
from functools import partial
from pathlib import Path

import click

from sidecar.cli.log import log_to_stderr

ENDED = (0, 128 + signal.SIGINT, 128 + signal.SIGTERM, 128 + signal.SIGHUP)


@click.command()
@click.argument("path", default=".", type=click.Path(exists=True, file_okay=False))
@click.option("--port", default=0, metavar="PORT", help="Port of the hub. Default: a free one.")
@click.option("--run", metavar="ID", help="The id of the run. Default: made from the folder.")
@click.option(
    "--roots",
    default="",
    metavar="PATH[:ro|:rw],...",
    help="Further folders that commands may touch, absolute; ro, for reading only, unless said.",
)
def dev(path: str, port: int, run: str | None, roots: str) -> int:
    """Serve a folder (default: this one): an embedded hub, a sidecar, and tokens for the other
    verbs, until Ctrl-C. Shows what happens.

    The hub listens on the loopback address only. Programs get the environment of this command,
    less what begins with SIDECAR_.

    \b
    Examples:
      sidecar dev                       this folder
      sidecar dev ~/work                another one
      sidecar exec -- make test         then, in another terminal
    """
    from sidecar.cli import loop, profiles
    from sidecar.cli.dev.stage import serve_folder
    from sidecar.cli.here import wait_for_lookers

    log_to_stderr("error")  # what happens is shown by the screen
    folder = Path(os.path.realpath(path))
    run = profiles.run_id_of(folder) if run is None else _checked(run)
    _check_roots(roots, path)
    with (
        profiles.claim(run, folder) as claim,
        tempfile.TemporaryDirectory(prefix="sidecar-dev-", ignore_cleanup_errors=True) as state,
    ):
        status = loop.run(partial(serve_folder, folder, run, claim, Path(state), port, roots))
        wait_for_lookers(Path(state))  # `sidecar drain` reads there how it ended
    return 0 if status in ENDED else status


def _checked(run: str) -> str:
    from sidecar.errors import Invalid
    from sidecar.protocol.names import check_id

    try:
        return check_id(run, "run")
    except Invalid as error:
        raise click.BadParameter(error.message, param_hint="--run") from error


def _check_roots(roots: str, folder: str) -> None:
    from sidecar.hands.rootlist import problems_of_roots

    problems = problems_of_roots(roots, folder, "the list")
    if problems:
        raise click.BadParameter("; ".join(problems), param_hint="--roots")
