"""`sidecar token`: mint a token, at the hub of `sidecar dev`, or with the key of any hub."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time
from pathlib import Path

import click

from sidecar.cli.output import complain, fail_usage, show_json
from sidecar.errors import SettingsError

DAY = 86400.0


@click.command()
@click.option("--run", metavar="ID", envvar="SIDECAR_RUN", help="Which run. Default: the only dev.")
@click.option("--profile", metavar="FILE", envvar="SIDECAR_PROFILE", help="The dev's profile file.")
@click.option("--sidecar", is_flag=True, help="For the sidecar of the run.")
@click.option("--controller", metavar="ID", help="For a controller. Default: one with a new id.")
@click.option("--watch", is_flag=True, help="The controller may look, and change nothing.")
@click.option(
    "--lifetime", default=300.0, type=click.FloatRange(1, DAY), metavar="SECONDS", help="[300]"
)
@click.option("--key-file", metavar="FILE", help="The hub's connection string; with --run.")
@click.option("--platform-key-file", metavar="FILE", help="The platform's key; with --run.")
@click.option("--hub-name", default="sidecar", metavar="NAME", help="With --key-file. [sidecar]")
@click.option("--json", "as_json", is_flag=True, help="url, token, expires_at, run, ...")
def token(
    run: str | None,
    profile: str | None,
    sidecar: bool,
    controller: str | None,
    watch: bool,
    lifetime: float,
    key_file: str | None,
    platform_key_file: str | None,
    hub_name: str,
    as_json: bool,
) -> int:
    """Mint a token and print it as a client URL. It is a secret: send it to a file, not to a log.

    With --platform-key-file it comes from the platform endpoint. A sidecar's is then a run token,
    with which it gets tokens there (SIDECAR_RUN_TOKEN_FILE); each call starts one more.

    \b
    Examples:
      sidecar token --controller me > token
      sidecar exec --token-file token --run demo --controller me -- ls
      sidecar token --key-file hub.key --run demo --sidecar --lifetime 3600 > token
      sidecar token --platform-key-file platform.key --run demo --sidecar > run-token
    """
    if sidecar and (controller or watch):
        raise fail_usage("--sidecar stands alone: --controller and --watch are for controllers")
    from sidecar.client import new_controller_id

    who = None if sidecar else controller or new_controller_id()
    answer: dict[str, object]
    if platform_key_file:
        answer = _ask_platform(Path(platform_key_file), run, who, watch, lifetime)
    elif key_file:
        answer = _sign(Path(key_file), hub_name, run, who, watch, lifetime)
    else:
        answer = _ask_dev(run, profile, who, watch, lifetime)
    if as_json:
        show_json(answer)
    else:
        url = f"{answer.get('url')}?access_token={answer.get('token')}"
        click.echo(answer.get("run_token", url))
    _warn_of_readers()
    return 0


def _warn_of_readers() -> None:
    """A shell makes the file that we print to, and most make it readable by everybody."""
    with contextlib.suppress(OSError, ValueError):  # there is no standard output
        found = os.fstat(sys.stdout.fileno())
        if stat.S_ISREG(found.st_mode) and found.st_mode & (stat.S_IRGRP | stat.S_IROTH):
            complain("others may read the file that the token went to: chmod 600, or umask 077")


def _ask_dev(
    run: str | None, profile: str | None, controller: str | None, watch: bool, lifetime: float
) -> dict[str, object]:
    import anyio

    from sidecar.cli import profiles
    from sidecar.cli.target import token_from

    found = profiles.find(run, profile)
    request = {"controller": controller, "watch": watch, "lifetime": lifetime}

    async def main() -> dict[str, object]:
        minted = await token_from(found.socket, sidecar=controller is None, **request)
        return {"url": minted.url, "token": minted.value, "expires_at": minted.expires_at}

    return {"run": found.run, "controller": controller, **anyio.run(main)}


def _ask_platform(
    path: Path, run: str | None, controller: str | None, watch: bool, lifetime: float
) -> dict[str, object]:
    from sidecar.cli.keyfile import read_platform_key
    from sidecar.cli.platformkey import controller_token, start_run

    if not run:
        raise SettingsError("--platform-key-file needs --run ID beside it")
    key = read_platform_key(path)
    if controller is None:
        return start_run(key, run)
    return controller_token(key, controller, run, watch=watch, lifetime=lifetime)


def _sign(
    path: Path, hub_name: str, run: str | None, controller: str | None, watch: bool, lifetime: float
) -> dict[str, object]:
    from sidecar.cli.keyfile import read_key
    from sidecar.hub.tokens import Tokens
    from sidecar.protocol.names import Scope, controller_grant, sidecar_grant

    if not run:
        raise SettingsError("--key-file needs --run ID beside it")
    key = read_key(path)
    if key.endpoint is None:
        raise SettingsError(f"key file {path}: a connection string is needed, with its Endpoint")
    scope = Scope.WATCH if watch else Scope.FULL
    grant = sidecar_grant(run) if controller is None else controller_grant(controller, [run], scope)
    now = time.time()
    audience = f"{key.endpoint}/client/hubs/{hub_name}"
    return {
        "run": run,
        "controller": controller,
        "url": f"ws{audience.removeprefix('http')}",
        "token": Tokens(key.access_key).mint_access(grant, audience, lifetime=lifetime, now=now),
        "expires_at": now + lifetime,
    }
