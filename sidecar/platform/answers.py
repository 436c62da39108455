"""What the platform endpoint answers, and what each refusal means. No I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from sidecar.errors import (
    ChannelError,
    NetworkFailure,
    RunEnded,
    RunTokenRefused,
    SettingsError,
    Superseded,
    TooManyRequests,
)
from sidecar.tokens.forms import is_loopback, url_for_log

REFUSED_PAUSE = 60.0  # seconds; what is refused for good is asked again that seldom
LONGEST_PAUSE = 3600.0  # seconds that a Retry-After may put us off
LONGEST_LIFE = 7 * 86400.0  # seconds; beyond it, `expires_in` is a mistake
LONGEST_TOKEN = 16 * 1024  # characters; it travels in a header


@dataclass(frozen=True, slots=True)
class Grant:
    """What a good answer holds. `expires_in` is in seconds from when it was asked for."""

    url: str
    token: str = field(repr=False)
    run_token: str = field(repr=False)
    expires_in: float
    generation: int


def check_endpoint(url: str) -> str:
    """`url` less a slash at its end, if a run token may be sent there. Raises `SettingsError`."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise SettingsError("the URL of the endpoint is malformed") from None
    if parts.scheme not in ("http", "https") or not host:
        raise SettingsError(f"{url_for_log(url)!r} is no endpoint: expected https://HOST/PATH")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise SettingsError("the URL of the endpoint holds more than host and path; leave it out")
    if parts.scheme == "http" and not is_loopback(host):
        raise SettingsError(
            f"{url_for_log(url)!r} would carry the run token in plain text: use https://"
        )
    return url.rstrip("/")


def check_run_token(text: str) -> str:
    """`text` if it can be a run token. Raises `SettingsError`, without quoting it."""
    text = text.strip()
    if not text:
        raise SettingsError("the run token is empty")
    if not text.isascii() or any(c.isspace() or not c.isprintable() for c in text):
        raise SettingsError("the run token holds characters that no token has")
    if len(text) > LONGEST_TOKEN:
        raise SettingsError(f"the run token has more than {LONGEST_TOKEN} characters")
    return text


def parse_grant(body: bytes) -> Grant:
    """A 200. Raises `NetworkFailure` for what no endpoint says, but a captive portal may."""
    found = _object(body)
    try:
        grant = Grant(
            url=_text(found, "url"),
            token=_text(found, "token"),
            run_token=check_run_token(_text(found, "run_token")),
            expires_in=_number(found, "expires_in", LONGEST_LIFE),
            generation=int(_number(found, "generation", 2.0**53)),
        )
    except (KeyError, SettingsError) as error:
        raise NetworkFailure(
            f"HTTP 200, but no answer of an endpoint ({error.args[0]}): check its URL"
        ) from None
    return grant


def refusal(status: int, body: bytes, *, retry_after: str | None) -> ChannelError:
    """Any other status, as what it means for us."""
    word = str(_object(body).get("error", ""))[:100]
    if status == 409 and word == "superseded":
        return Superseded("a later start of this run has taken over (HTTP 409 from the endpoint)")
    if status == 403 and word == "run_ended":
        return RunEnded("the run has ended (HTTP 403 from the endpoint)")
    if status in (401, 403):
        return RunTokenRefused(
            f"HTTP {status}: the endpoint does not accept our run token", retry_after=REFUSED_PAUSE
        )
    if status == 429:
        pause = _seconds(retry_after)
        return TooManyRequests(
            f"HTTP 429: the endpoint wants to be asked again in {pause:.0f} s", retry_after=pause
        )
    if 300 <= status < 400:
        return NetworkFailure(f"HTTP {status}: the endpoint is elsewhere; no redirect is followed")
    help = "check the path of its URL" if status == 404 else "it is tried again"
    return NetworkFailure(f"HTTP {status} from the endpoint, or from a proxy before it: {help}")


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _text(found: Mapping[str, Any], key: str) -> str:
    value = found.get(key)
    if not isinstance(value, str) or not value:
        raise KeyError(f"`{key}` is missing, or no text")
    return value


def _number(found: Mapping[str, Any], key: str, most: float) -> float:
    value = found.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= most:
        raise KeyError(f"`{key}` is missing, or no number that makes sense")
    return float(value)


def _seconds(retry_after: str | None) -> float:
    """The header may also hold a date (RFC 9110 §10.2.3); calendars cannot be trusted with it."""
    if retry_after is None or not retry_after.isdecimal():
        return REFUSED_PAUSE
    return min(max(float(retry_after[:10]), 1.0), LONGEST_PAUSE)
