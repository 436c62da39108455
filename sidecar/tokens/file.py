"""A token in a file that somebody else keeps fresh."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

from sidecar.clock import Clock, SystemClock
from sidecar.errors import NoToken, SettingsError
from sidecar.tokens.forms import Token, check_run, check_url, parse_token
from sidecar.tokens.watched import WatchedFile

_log = logging.getLogger(__name__)


class TokenFile:
    """Reads the file at every dial; it holds a token in any of the forms of `tokens.forms`.

    While it is missing, empty or half written, the last good token is kept: whoever replaces the
    file need not do so atomically. So it is while it holds one that no sidecar of `run` can use.
    A token that looks wrong otherwise is tried all the same.
    """

    def __init__(
        self,
        path: str | Path,
        hub_url: str | None = None,
        *,
        run: str | None = None,
        allow_plain: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self._run = run
        self._file = WatchedFile(Path(path))
        self._hub_url = None if hub_url is None else check_url(hub_url, allow_plain=allow_plain)
        self._allow_plain = allow_plain
        self._clock = clock or SystemClock()
        self._good: Token | None = None
        self.complaint = ""  # what is wrong with the file, if anything

    async def token(self) -> Token:
        """Read the file. Raises `NoToken` if it never held a token."""
        path = self._file.path
        try:
            text = await self._file.read()
        except SettingsError as error:
            return self._last_good(f"token file {error}")
        try:
            token = parse_token(text, self._hub_url, allow_plain=self._allow_plain)
            if self._run is not None:
                check_run(token, self._run)
        except SettingsError as error:
            return self._last_good(f"token file {path}: {error}")
        self.complaint = ""
        if self._good is None or token.value != self._good.value:
            self._good = self._timed(token)
        return self._good

    async def changed(self) -> None:
        """Return when the file is another one than `token` last read."""
        await self._file.changed()

    def _timed(self, token: Token) -> Token:
        """With the time of its end on our clock, which does not jump as the calendar may."""
        if token.expires_at is None:
            return token
        left = token.expires_at - self._clock.wall()
        return dataclasses.replace(token, lapses_at=self._clock.now() + left)

    def _last_good(self, complaint: str) -> Token:
        if self._good is None:
            self.complaint = complaint
            raise NoToken(complaint)
        complaint = f"{complaint}; the last good token stays in use"
        if complaint != self.complaint:  # once for each thing that is wrong, not for each dial
            _log.warning("%s", complaint)
        self.complaint = complaint
        return self._good
