"""Where the token for the hub comes from.

A provider is asked at every dial, so that a new connection always has the newest token. While
the channel backs off it waits for `changed`, which ends the back-off at once: an operator who
has put a good token in place need not wait for the next try.

Forms of a token (Azure/azure-webpubsub, client-spec; Learn, howto-generate-client-access-url):

    bare JWT        eyJ...                                            needs the hub's URL beside it
    client URL      wss://HOST/client/hubs/HUB?access_token=eyJ...
    JSON            {"url": "wss://HOST/client/hubs/HUB", "token": "eyJ..."}; other keys ignored

The token leaves this process in the Authorization header only, never in a URL, and never in
plain text to another host: `ws://` is for loopback, unless `allow_plain` says otherwise.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

import anyio
import anyio.to_thread

from sidecar.errors import ChannelError, NoToken, SettingsError

PROVIDER_TIME = 30.0  # seconds that a provider may take; it may ask a platform over HTTPS
POLL_INTERVAL = 1.0  # seconds between looks at a token file, during a back-off only
MAX_FILE = 64 * 1024  # bytes; Azure's own limit on a token is far lower, as it travels in a header

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Token:
    """What one dial needs. `url` holds no token; `expires_at` is in seconds since the epoch."""

    url: str
    value: str = field(repr=False)
    expires_at: float | None = None


class TokenProvider(Protocol):
    """Where the channel gets its token."""

    async def token(self) -> Token:
        """The newest token; asked at every dial. Raises `ChannelError` when there is none."""
        ...

    async def changed(self) -> None:
        """Return when `token` may answer differently than it last did. Cancelling is safe."""
        ...


async def ask(provider: TokenProvider) -> Token:
    """A token from `provider`. It is other people's code, so whatever goes wrong there, or takes
    too long, is a `ChannelError`: the channel tries again."""
    try:
        with anyio.fail_after(PROVIDER_TIME):
            return await provider.token()
    except ChannelError:
        raise
    except TimeoutError:
        raise NoToken(f"the token provider took more than {PROVIDER_TIME:.0f} s") from None
    except SettingsError as error:
        raise NoToken(str(error)) from None
    except Exception as error:
        _log.exception("the token provider failed")
        raise NoToken(f"the token provider failed: {type(error).__name__}") from None


class FixedToken:
    """One token, for ever."""

    def __init__(self, url: str, token: str, *, allow_plain: bool = False) -> None:
        self._token = make_token(url, token, allow_plain=allow_plain)

    async def token(self) -> Token:
        return self._token

    async def changed(self) -> None:
        await anyio.sleep_forever()


class CallableProvider:
    """Asks a coroutine function, for programs that know how to get a token themselves."""

    def __init__(self, ask: Callable[[], Awaitable[Token]]) -> None:
        self._ask = ask

    async def token(self) -> Token:
        return await self._ask()

    async def changed(self) -> None:
        await anyio.sleep_forever()


class TokenFile:
    """A file that somebody else writes, in any of the forms above.

    While it is missing, empty or half written, the last good token is kept: whoever replaces the
    file need not do so atomically.
    """

    def __init__(
        self, path: str | Path, hub_url: str | None = None, *, allow_plain: bool = False
    ) -> None:
        self._path = Path(path)
        self._hub_url = None if hub_url is None else check_url(hub_url, allow_plain=allow_plain)
        self._allow_plain = allow_plain
        self._good: Token | None = None
        self._seen: tuple[int, int, int] | None = None
        self._complaint = ""

    async def token(self) -> Token:
        """Read the file. Raises `NoToken` if it never held a token."""
        try:
            self._seen, data = await anyio.to_thread.run_sync(_read, self._path)
            if len(data) > MAX_FILE:
                raise SettingsError(f"more than {MAX_FILE} bytes; this is no token")
            self._good = parse_token(data.decode(), self._hub_url, allow_plain=self._allow_plain)
            self._complaint = ""
        except OSError as error:
            self._seen = None
            self._keep_last_good(f"token file {self._path}: {error.strerror}")
        except (SettingsError, UnicodeDecodeError) as error:
            self._keep_last_good(f"token file {self._path}: {error}")
        assert self._good is not None
        return self._good

    async def changed(self) -> None:
        """Return when the file is another one than `token` last read.

        It polls, because a watch on the file misses what other hosts write to a network mount,
        and a back-off is the only time at which anybody asks.
        """
        while True:
            identity = await anyio.to_thread.run_sync(_identity, self._path)
            if identity not in (None, self._seen):
                return
            await anyio.sleep(POLL_INTERVAL)

    def _keep_last_good(self, complaint: str) -> None:
        if self._good is None:
            raise NoToken(complaint)
        if complaint != self._complaint:
            _log.warning("%s; the last good token stays in use", complaint)
            self._complaint = complaint


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
    return float(exp) if isinstance(exp, int | float) and not isinstance(exp, bool) else None


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


def _identity_of(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_mtime_ns, status.st_size


def _identity(path: Path) -> tuple[int, int, int] | None:
    try:
        return _identity_of(path.stat())
    except OSError:
        return None


def _read(path: Path) -> tuple[tuple[int, int, int], bytes]:
    with path.open("rb") as file:
        return _identity_of(os.fstat(file.fileno())), file.read(MAX_FILE + 1)
