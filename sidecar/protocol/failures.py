"""Why a connection was refused or lost, told from HTTP statuses and close codes.

Sources: RFC 6455 §7.4.1 (close codes); Azure/azure-webpubsub, client-spec.md, 1.4 (1008: the
service has forgotten the connection); Learn, howto-troubleshoot-common-issues.
"""

from __future__ import annotations

from sidecar.errors import ChannelError, NetworkFailure, Replaced, TokenExpired, TokenRefused

NORMAL = 1000
POLICY_VIOLATION = 1008
TOO_BIG = 1009
DEFECTS = frozenset({1002, 1003, 1007, TOO_BIG})  # the hub says that we broke the protocol
UNRECOVERABLE = DEFECTS | {POLICY_VIOLATION}

_TOKEN_STATUSES = frozenset({400, 401, 403})  # 400: a claim of the token is malformed
_PASSING_STATUSES = frozenset({408, 425, 429})  # 4xx, yet worth the same try again


def from_status(status: int, *, left: float | None, note: str = "") -> ChannelError:
    """The hub, or a proxy before it, answered the dial with an HTTP status instead of 101.

    `left`: seconds until the token lapses, below 0 after that; None if it does not say. `note` is
    what else is known, for the end of the sentence."""
    note = f"; {note}" if note else ""
    if status == 401 and left is not None and left <= 0:
        return TokenExpired(f"HTTP 401: the token expired {-left:.0f} s ago{note}")
    if status in _TOKEN_STATUSES:
        help = "its key, its audience or another claim is wrong"
        return TokenRefused(f"HTTP {status}: the hub does not accept this token: {help}{note}")
    return NetworkFailure(f"HTTP {status}: {_meaning(status)}{note}")


def _meaning(status: int) -> str:
    """Of a status that does not speak of the token."""
    if status == 404:
        return "there is no hub of this name; check the URL, wss://HOST/client/hubs/NAME"
    if 200 <= status < 300:
        return "a web page and no hub; check the URL, wss://HOST/client/hubs/NAME"
    if 300 <= status < 400:
        return "the hub is elsewhere, and no redirect is followed; check the URL"
    return "from the hub, or from a proxy before it; it is tried again"


def ends_recovery(status: int | None) -> bool:
    """Whether this answer to a recovery means that it never will work."""
    return status is not None and 400 <= status < 500 and status not in _PASSING_STATUSES


def from_close(code: int | None, reason: str, farewell: str | None) -> ChannelError:
    """An open connection ended. `farewell` is the reason of a `disconnected` frame before it."""
    detail = f"close code {code}" + (f", {reason!r}" if reason else "")
    if code in DEFECTS:
        return ChannelError(f"the hub says that we broke the protocol ({detail}): our defect")
    if code == POLICY_VIOLATION:
        return Replaced(f"the hub has forgotten this connection ({detail})")
    if farewell is not None:
        return Replaced(f"the hub ended the connection on purpose: {farewell!r}")
    if code == NORMAL:
        return Replaced(f"the hub ended the connection on purpose ({detail})")
    return NetworkFailure("the connection broke" if code is None else f"connection lost ({detail})")
