"""`sidecar repoint`: give the sidecar of this sandbox another token, hub or endpoint."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

from sidecar.cli.here import Nobody, ask_health, ask_one, find_state
from sidecar.cli.output import complain, fail_usage, show, show_json
from sidecar.errors import SettingsError

FAILED = 1
NOBODY = 2
NOT_YET = 75
LOOK = 0.1  # seconds between two looks
LARGEST = 48 * 1024  # characters of a token; it has to fit into one request


@click.command()
@click.argument("source", metavar="[-]", required=False)
@click.option(
    "--token-file", metavar="FILE", help="A file with the token; - too is standard input."
)
@click.option("--hub", metavar="URL", help="It is a token for that hub: wss://HOST/client/hubs/HUB")
@click.option("--endpoint", metavar="URL", help="It is a run token for that platform endpoint.")
@click.option("--state", metavar="DIR", help="The state folder. Default: as `sidecar health`.")
@click.option(
    "--wait",
    default=15.0,
    type=click.FloatRange(0, 3600),
    metavar="SECONDS",
    help="How long to wait until it is on the channel with it. [15]",
)
@click.option("--json", "as_json", is_flag=True, help="Print how the token is, as JSON.")
def repoint(
    source: str | None,
    token_file: str | None,
    hub: str | None,
    endpoint: str | None,
    state: str | None,
    wait: float,
    as_json: bool,
) -> int:
    """Bring back a sidecar whose token lapsed, or lead it elsewhere. The token is read from
    standard input (`-`) or a file, because everybody may read a command line. It has any form
    that a token file may have.

    It is used at once: a back-off ends, and an open channel is handed over without a loss. Hosts
    are limited to those that were fixed when the sidecar started (SIDECAR_HOSTS). It holds after
    a restart with the same settings, until the hub or the endpoint refuses it.

    \b
    Examples:
      sidecar repoint - < token                          for the hub that it has
      sidecar repoint --hub wss://b.example/client/hubs/runs --token-file token
      sidecar repoint --endpoint https://platform.example/v2 - < run-token

    Exit status: 0 it is on the channel with it, 75 not yet, 1 refused, 2 no sidecar answers.
    """
    request = {"op": "repoint", "token": _read(source, token_file), "hub": hub}
    request["endpoint"] = endpoint
    try:
        folder = find_state(state)
        before = ask_health(folder)
        answer = ask_one(folder / "admin.sock", request)
    except Nobody as error:
        complain(str(error))
        return NOBODY
    except (OSError, ValueError) as error:
        complain(f"{folder / 'admin.sock'}: {getattr(error, 'strerror', None) or error}")
        return NOBODY
    if "error" in answer:
        complain(f"{answer['error']}: {answer.get('message')}")
        return FAILED
    status, now = _watch(folder, before, time.monotonic() + wait)
    if as_json:
        show_json(now.get("token", {}))
    else:
        show(_describe(status, answer, now))
    return status


def _read(source: str | None, token_file: str | None) -> str:
    if (source is None) == (token_file is None):
        raise fail_usage("say where the token is: `-` for standard input, or --token-file FILE")
    if source not in (None, "-"):
        raise fail_usage("a token is never an argument: everybody may read those; use `-`")
    is_piped = token_file in (None, "-")
    what = "the token" if is_piped else f"token file {token_file}"
    try:
        text = sys.stdin.read(LARGEST + 1) if is_piped else _read_file(Path(token_file or ""))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{what}: {getattr(error, 'strerror', None) or 'not text'}") from None
    if len(text) > LARGEST:
        raise SettingsError(f"{what}: more than {LARGEST} characters; this is none")
    return text.strip()


def _read_file(path: Path) -> str:
    with path.open() as file:
        return file.read(LARGEST + 1)


def _watch(folder: Path, before: dict[str, Any], until: float) -> tuple[int, dict[str, Any]]:
    """Until it is on a new connection, or has been refused, or time is up."""
    connection = before.get("channel", {}).get("connection_id")
    while True:
        try:
            now = ask_health(folder)
        except Nobody:
            return NOT_YET, {}
        channel, token = now.get("channel", {}), now.get("token", {})
        if not str(token.get("source")).startswith("repointed"):
            return FAILED, now
        if channel.get("state") == "open" and channel.get("connection_id") != connection:
            return 0, now
        if time.monotonic() >= until:
            return NOT_YET, now
        time.sleep(LOOK)


def _describe(status: int, answer: dict[str, Any], now: dict[str, Any]) -> str:
    where = f"{answer.get('repointed')} {answer.get('url')}"
    kept = "" if answer.get("kept") else "; a restart will forget it: its disk does not write"
    channel, token = now.get("channel", {}), now.get("token", {})
    if status == 0:
        return f"repointed to the {where}, channel open{kept}"
    why = token.get("failure") or channel.get("message") or "no reason is known"
    if status == FAILED:
        return f"refused, and back to what the settings name: {why}"
    return f"repointed to the {where}, channel {channel.get('state')}: {why}{kept}"
