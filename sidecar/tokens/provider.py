"""Where the channel gets its token: it asks a provider at every dial, so that a new connection
always has the newest one.

While the channel backs off it waits for `changed`, which ends the back-off at once: an operator
who has put a good token in place need not wait for the next try.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Protocol, runtime_checkable

import anyio

from sidecar.errors import ChannelError, NoToken, SettingsError
from sidecar.tokens.forms import Token, make_token

PROVIDER_TIME = 30.0  # seconds that a provider may take; it may ask a platform over HTTPS

_log = logging.getLogger(__name__)


class TokenProvider(Protocol):
    """Where the channel gets its token."""

    async def token(self) -> Token:
        """The newest token; asked at every dial. Raises `ChannelError` when there is none."""
        ...

    async def changed(self) -> None:
        """Return when `token` may answer differently than it last did. Cancelling is safe."""
        ...


@runtime_checkable
class Listener(Protocol):
    """A provider that wants to know what became of its tokens; not every provider does."""

    def used(self, token: Token) -> None:
        """The hub took `token`."""
        ...

    def refused(self, token: Token, error: ChannelError) -> None:
        """The hub did not take `token`: `TokenExpired` or `TokenRefused`."""
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
