"""The three tokens of the hub: access, reconnection, REST. All are JWTs signed with HS256.

Sources: the Azure SDKs (how they sign), Azure/azure-webpubsub tools/emulator (what is checked).

The key is the UTF-8 text of the access key, not decoded from base64. `exp` is demanded and
exact; `nbf` and `iat` may lie five minutes ahead. Audiences are compared without regard to case.
`now` is the calendar's, in seconds since the epoch.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import jwt

from sidecar.errors import SidecarError
from sidecar.protocol.names import GROUPS_CLAIM, Grant

ALGORITHM = "HS256"
CLOCK_SKEW = 300.0
LATEST = 1e15  # seconds since the epoch; 32 million years
RECONNECTION_ISSUER = "https://webpubsub.azure.com"
RECONNECTION_LIFETIME = 7 * 86400.0

_Claims = Mapping[str, Any]


class TokenError(SidecarError):
    """A token that is not accepted, and the HTTP status to say so with."""

    def __init__(self, message: str, status: int = 401) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Access:
    """What an access token says of its bearer; no user id means anonymous."""

    user_id: str | None
    groups: tuple[str, ...]
    roles: tuple[str, ...]
    expires_at: float  # seconds since the epoch


class Tokens:
    """Signs and checks with one access key."""

    def __init__(self, access_key: str) -> None:
        self._key = access_key.encode()

    def mint_access(self, grant: Grant, audience: str, *, lifetime: float, now: float) -> str:
        # Whole seconds, as the Azure SDKs have them; a token must not lapse before it is said to.
        times = {"iat": int(now), "nbf": int(now), "exp": math.ceil(now + lifetime)}
        return self._sign({**grant.claims(), "aud": audience, **times})

    def read_access(self, token: str, audiences: Iterable[str], *, now: float) -> Access:
        """What `token` allows; raises `TokenError` unless it is meant for one of `audiences`."""
        claims = self._read(token, audiences, now=now)
        user_id = claims.get("sub")
        if user_id is not None and not isinstance(user_id, str):
            raise TokenError("the claim 'sub' is not a string")
        groups, roles = _strings(claims, GROUPS_CLAIM), _strings(claims, "role")
        return Access(user_id or None, groups, roles, float(claims["exp"]))

    def mint_reconnection(self, connection_id: str, *, now: float) -> str:
        claims = {
            "iss": RECONNECTION_ISSUER,
            "aud": connection_id,
            "jti": secrets.token_urlsafe(12),
            "exp": int(now + RECONNECTION_LIFETIME),
        }
        return self._sign(claims)

    def check_reconnection(self, token: str, connection_id: str, *, now: float) -> None:
        """Raises `TokenError` unless `token` was made for `connection_id`."""
        claims = self._read(token, [connection_id], now=now)
        if claims.get("iss") != RECONNECTION_ISSUER or claims.get("aud") != connection_id:
            raise TokenError("not a reconnection token of this connection")

    def check_rest(self, token: str, audiences: Iterable[str], *, now: float) -> None:
        self._read(token, audiences, now=now)

    def _sign(self, claims: dict[str, Any]) -> str:
        return jwt.encode(claims, self._key, algorithm=ALGORITHM)

    def _read(self, token: str, audiences: Iterable[str], *, now: float) -> _Claims:
        try:
            claims = jwt.decode(token, self._key, algorithms=[ALGORITHM], options=_SIGNATURE_ONLY)
        except jwt.InvalidTokenError as error:
            raise TokenError(f"not a token of this hub: {error}") from None
        _check_times(claims, now)
        audience = claims.get("aud")
        named = audience if isinstance(audience, list) else [audience]
        wanted = {text.lower() for text in audiences}
        if not any(isinstance(text, str) and text.lower() in wanted for text in named):
            raise TokenError("the token is meant for another audience")
        return claims


# PyJWT would read the machine's clock and compare audiences by case; both are done here.
_SIGNATURE_ONLY: Any = {
    "verify_signature": True,
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
}


def client_audiences(hosts: Iterable[str], hub: str) -> list[str]:
    """What the `aud` of an access token may be: the client URL, with the scheme http, not ws."""
    return [
        f"{scheme}://{host}/client/hubs/{hub}" for host in hosts for scheme in ("http", "https")
    ]


def rest_audiences(hosts: Iterable[str], path: str, query: str) -> list[str]:
    """What the `aud` of a REST token may be: the URL with or without its query, decoded or not.

    The documentation says without, the SDKs sign it with.
    """
    targets = {path, f"{path}?{query}"}
    targets |= {unquote(target) for target in targets}
    return [
        f"{scheme}://{host}{target}"
        for host in hosts
        for scheme in ("http", "https")
        for target in targets
    ]


def _check_times(claims: _Claims, now: float) -> None:
    expiry = _time(claims, "exp")
    if expiry is None:
        raise TokenError("the token has no expiry")
    if expiry <= now:
        raise TokenError("the token has expired")
    for name in ("nbf", "iat"):
        start = _time(claims, name)
        if start is not None and start > now + CLOCK_SKEW:
            raise TokenError(f"the token is not valid yet ({name})")


def _time(claims: _Claims, name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TokenError(f"the claim {name!r} is not a number")
    if not abs(value) < LATEST:  # nor is NaN, which JSON of Python may hold
        raise TokenError(f"the claim {name!r} is not a number of seconds")
    return float(value)


def _strings(claims: _Claims, name: str) -> tuple[str, ...]:
    """A claim that is a string or a list of them."""
    value = claims.get(name)
    if value is None:
        return ()
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(item, str) for item in values):
        raise TokenError(f"the claim {name!r} holds something else than strings", 400)
    return tuple(values)
