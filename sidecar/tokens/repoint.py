"""What an operator asks for with `sidecar repoint`: another token, hub or endpoint.

    {"op": "repoint", "token": TEXT}                    for what is dialled or asked now
    {"op": "repoint", "token": TEXT, "hub": URL}        a token for that hub
    {"op": "repoint", "token": TEXT, "endpoint": URL}   a run token for that endpoint

TEXT has any of the forms of `tokens.forms`. Without a URL, and if an endpoint is asked now, what
is no client URL and no JSON is a run token for it.

An endpoint is trusted with where its tokens are for: what it answers may name any hub. A repoint
may only name hosts of the list that was fixed at the start, so that who can reach the admin
socket cannot lead this sidecar, and all that it may do, to a hub of his own.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sidecar.errors import CallError, Code, Invalid, SettingsError
from sidecar.tokens.forms import Oddity, Token, check_run, oddities, parse_token
from sidecar.tokens.private import write_private

FORMAT = 1
NAME = "repointed"

_log = logging.getLogger(__name__)

HUB, ENDPOINT = "hub", "endpoint"


@dataclass(frozen=True, slots=True)
class Repoint:
    """`kind` is hub or endpoint, `url` its URL, `token` the one for it."""

    kind: str
    url: str
    token: str = field(repr=False)


class Hosts:
    """The hosts that a repoint may name: `host`, for any port, or `host:port`."""

    def __init__(self, entries: Iterable[str]) -> None:
        self._entries = {entry.strip().lower() for entry in entries if entry.strip()}

    def add(self, url: str) -> None:
        """The place of `url`, which somebody named who is trusted: on another port of the same
        host somebody else may listen."""
        with suppress(ValueError):  # its port is no number: nothing is there
            self._entries.add(_place(url)[1])

    def check(self, url: str) -> None:
        """Raise `CallError` (denied) for a host that is not on the list."""
        places = _place(url)
        if not set(places) & self._entries:
            known = ", ".join(sorted(self._entries)) or "none"
            raise CallError(
                Code.DENIED,
                f"{places[1]!r} is none of the hosts that were fixed at the start ({known}):"
                " restart with SIDECAR_HOSTS, if it shall be",
            )


def _place(url: str) -> tuple[str, str]:
    """`host` and `host:port`. That the port is a number has been checked."""
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    return host, f"{host}:{parts.port or (443 if parts.scheme in ('https', 'wss') else 80)}"


def parse_request(
    request: Mapping[str, Any],
    *,
    run: str,
    hub_url: str | None,
    endpoint: str | None,
    hosts: Hosts,
    allow_plain: bool,
    wall: float,
) -> Repoint:
    """What is asked for, checked. `endpoint`: the one that is asked now. Raises `CallError`."""
    text, hub, named = (_text(request, key) for key in ("token", "hub", "endpoint"))
    if not text:
        raise Invalid("a repoint needs a token")
    if hub and named:
        raise Invalid("a repoint is to a hub or to an endpoint, not to both")
    is_plain = not text.startswith("{") and "://" not in text
    try:
        if named or (endpoint and not hub and is_plain):
            asked = _to_endpoint(named or endpoint or "", text)
        else:
            token = check_run(parse_token(text, hub or hub_url, allow_plain=allow_plain), run)
            _refuse_odd(token, wall)
            asked = Repoint(HUB, token.url, token.value)
    except SettingsError as error:
        hint = (
            "; if it is a run token, name its endpoint" if is_plain and not (named or hub) else ""
        )
        raise Invalid(f"the token: {error}{hint}") from None
    hosts.check(asked.url)
    return asked


def _to_endpoint(url: str, text: str) -> Repoint:
    from sidecar.platform.answers import check_endpoint, check_run_token

    return Repoint(ENDPOINT, check_endpoint(url), check_run_token(text))


def _refuse_odd(token: Token, wall: float) -> None:
    """Here somebody is there to mend it; another host may be a proxy's, so it is let through."""
    odd = oddities(token, wall=wall)
    odd.pop(Oddity.OTHER_HOST, None)
    odd.pop(Oddity.NOT_YET, None)  # the hub says so, if it is not our clock
    if odd:
        raise Invalid(f"the token is of no use: {'; '.join(odd.values())}")


def _text(request: Mapping[str, Any], key: str) -> str:
    value = request.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Invalid(f"`{key}` is a text, got {type(value).__name__}")
    return value.strip()


# What survives a restart --------------------------------------------------------------------


def write_note(folder: Path, repoint: Repoint, *, made_for: str) -> None:
    """Keep it for a restart with the same settings, of which `made_for` is a digest."""
    write_private(folder / NAME, {"format": FORMAT, "made_for": made_for, **asdict(repoint)})


def read_note(folder: Path, *, made_for: str) -> Repoint | None:
    """What was kept, unless other settings have been given since: they are the newer word."""
    try:
        found = json.loads((folder / NAME).read_text())
        if found["format"] == FORMAT and found["made_for"] == made_for:
            return Repoint(str(found["kind"]), str(found["url"]), str(found["token"]))
        is_ours = found["format"] == FORMAT
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        is_ours = False
    if not is_ours:
        _log.warning("%s cannot be read, or is a newer sidecar's: not repointed", folder / NAME)
    return None


def remove_note(folder: Path) -> None:
    (folder / NAME).unlink(missing_ok=True)
