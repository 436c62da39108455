"""What a token for the hub looks like, and where it may be sent.

Forms of a token (Azure/azure-webpubsub, client-spec; Learn, howto-generate-client-access-url):

    bare JWT        eyJ...                                            needs the hub's URL beside it
    client URL      wss://HOST/client/hubs/HUB?access_token=eyJ...
    JSON            {"url": "wss://HOST/client/hubs/HUB", "token": "eyJ..."}; other keys ignored,
                    so that the answer of a platform endpoint can be put into a file as it is

The token leaves this process in the Authorization header only, never in a URL, and never in
plain text to another host: `ws://` is for loopback, unless `allow_plain` says otherwise.

Only the hub can verify a token. What is read here without verifying it serves sentences for
people, and the time of the next refresh; a token is never kept from the hub because of it, as
our calendar may be the one that is wrong.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeGuard
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

from sidecar.errors import SettingsError
from sidecar.protocol.names import GROUPS_CLAIM, Subject

LEEWAY = 60.0  # seconds that the clocks of who mints and who looks may differ


@dataclass(frozen=True, slots=True)
class Token:
    """What one dial needs. `url` holds no token; `expires_at` is in seconds since the epoch.

    `lapses_at` is the same moment on our own clock, which does not jump, where that is known.
    """

    url: str
    value: str = field(repr=False)
    expires_at: float | None = None
    lapses_at: float | None = field(default=None, compare=False)


def parse_token(text: str, hub_url: str | None, *, allow_plain: bool = False) -> Token:
    """A token in any of the forms above. Raises `SettingsError`, without quoting the text."""
    text = text.strip()
    if not text:
        raise SettingsError("it is empty; expected a JWT, a client URL, or JSON with url and token")
    if text.startswith("{"):
        return _parse_json(text, hub_url, allow_plain=allow_plain)
    if "://" in text:
        return parse_client_url(text, allow_plain=allow_plain)
    if _claims(text) is None:
        raise SettingsError("it is not a JWT, or not all of one: three parts with dots expected")
    if hub_url is None:
        raise SettingsError("a bare token needs the URL of the hub beside it (SIDECAR_HUB)")
    return make_token(hub_url, text, allow_plain=allow_plain)


def parse_client_url(text: str, *, allow_plain: bool = False) -> Token:
    """`wss://HOST/client/hubs/HUB?access_token=...` as a token and a URL without it."""
    parts = _split(text.strip())
    query = parse_qsl(parts.query, keep_blank_values=True)
    values = [value for name, value in query if name == "access_token"]
    if len(values) != 1:
        raise SettingsError(f"{len(values)} access_token in the client URL, exactly one expected")
    rest = urlencode([pair for pair in query if pair[0] != "access_token"])
    url = urlunsplit((parts.scheme, parts.netloc, parts.path, rest, ""))
    return make_token(url, values[0], allow_plain=allow_plain)


def make_token(url: str, value: str, *, allow_plain: bool = False) -> Token:
    """`value` for the hub at `url`, both checked."""
    # A line break in a header would let a token file add headers of its own.
    if not value or not value.isascii() or any(c.isspace() or not c.isprintable() for c in value):
        raise SettingsError("the token is empty or holds characters that no token has")
    return Token(check_url(url, allow_plain=allow_plain), value, expiry(value))


def check_run(token: Token, run: str) -> Token:
    """`token` if the sidecar of `run` can serve with it. Raises `SettingsError`.

    With one of a controller, or of another run, it would be on the channel and hear nobody. The
    hub joins a connection to the groups that its token names, so these can be believed unverified;
    a token that names none may be joined to them by the platform.
    """
    claims = _claims(token.value) or {}
    groups, needed = claims.get(GROUPS_CLAIM), Subject(run).commands_group
    if isinstance(groups, str):
        groups = [groups]
    if isinstance(groups, list) and groups and needed not in groups:
        joined = ", ".join(repr(str(group)[:70]) for group in groups[:3])
        raise SettingsError(
            f"it is not for the sidecar of run {run!r}: it joins {joined} and not {needed!r};"
            " mint one for this run, or set SIDECAR_RUN"
        )
    return token


def check_url(url: str, *, allow_plain: bool = False) -> str:
    """`url` if a token may be sent there. Raises `SettingsError` saying why not."""
    parts = _split(url)
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise SettingsError(
            f"{url_for_log(url)!r} is not a hub: expected wss://HOST/client/hubs/HUB"
        )
    if parts.username is not None or parts.password is not None:
        raise SettingsError("the URL of the hub holds a user name or password; leave them out")
    if parts.scheme == "ws" and not allow_plain and not is_loopback(parts.hostname):
        raise SettingsError(
            f"{url_for_log(url)!r} would carry the token in plain text: use wss://, or allow it"
        )
    return url


def is_loopback(host: str) -> bool:
    """Whether `host` can only be this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def url_for_log(url: str) -> str:
    """`url` without user, password, query and fragment, where tokens may be."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def expiry(jwt: str) -> float | None:
    """The `exp` of a JWT (RFC 7519 §4.1.4), unverified: only the hub can verify it.

    None for what is no JWT, or one without `exp`: such a token is simply tried.
    """
    exp = (_claims(jwt) or {}).get("exp")
    return float(exp) if _is_number(exp) else None


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


class Oddity(StrEnum):
    """What may speak against a token before it is tried."""

    NO_END = "no_end"
    LAPSED = "lapsed"
    NOT_YET = "not_yet"
    OTHER_HUB = "other_hub"
    OTHER_HOST = "other_host"  # which is right behind a proxy that has a name of its own


def oddities(token: Token, *, wall: float) -> dict[Oddity, str]:
    """A clause for each that holds: "it has no `exp`"."""
    claims = _claims(token.value)
    if claims is None:
        return {}
    found = {}
    if token.expires_at is None:
        found[Oddity.NO_END] = "it has no `exp`, without which hubs refuse a token"
    elif token.expires_at <= wall:
        ago = wall - token.expires_at
        found[Oddity.LAPSED] = f"it expired {ago:.0f} s ago by the clock of this machine"
    begins = max(
        (claims[name] for name in ("nbf", "iat") if _is_number(claims.get(name))), default=0
    )
    if begins > wall + LEEWAY:
        later = begins - wall
        found[Oddity.NOT_YET] = f"it begins only in {later:.0f} s by the clock of this machine"
    audiences = claims.get("aud")
    if isinstance(audiences, str):
        audiences = [audiences]
    if isinstance(audiences, list) and audiences:
        host, hub = _place(token.url)
        places = [_place(str(audience)) for audience in audiences]
        meant, goes = str(audiences[0])[:200], url_for_log(token.url)
        if hub not in [other for _, other in places]:
            found[Oddity.OTHER_HUB] = f"it is for another hub ({meant!r}, and it goes to {goes!r})"
        elif (host, hub) not in places:
            found[Oddity.OTHER_HOST] = f"it is for another host ({meant!r}, not {goes!r})"
    return found


def _place(url: str) -> tuple[str, str]:
    """Host and hub of a client URL or of an audience, which name the same place differently."""
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        return "", ""
    default = {"ws": 80, "http": 80, "wss": 443, "https": 443}.get(parts.scheme)
    hub = dict(parse_qsl(parts.query)).get("hub") or parts.path.rstrip("/").rpartition("/")[2]
    return (host if port in (None, default) else f"{host}:{port}"), hub.lower()


def _claims(jwt: str) -> dict[str, Any] | None:
    parts = jwt.split(".")
    if len(parts) != 3 or not all(parts):
        return None
    padded = parts[1] + "=" * (-len(parts[1]) % 4)
    try:
        claims = json.loads(base64.urlsafe_b64decode(padded))
    except (binascii.Error, ValueError, RecursionError):
        return None
    return claims if isinstance(claims, dict) else None


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises if it is not a number
    except ValueError:
        raise SettingsError("the URL of the hub is malformed") from None
    return parts


def _parse_json(text: str, hub_url: str | None, *, allow_plain: bool) -> Token:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise SettingsError("it begins like JSON and is none; is it still being written?") from None
    url, value = content.get("url", hub_url), content.get("token")
    if not isinstance(url, str):
        raise SettingsError("its JSON has no `url`, and no URL of the hub is set (SIDECAR_HUB)")
    if value is None:
        return parse_client_url(url, allow_plain=allow_plain)
    if not isinstance(value, str):
        raise SettingsError("`token` in its JSON is not a string")
    return make_token(url, value, allow_plain=allow_plain)
