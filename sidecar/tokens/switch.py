"""The provider under the channel of `sidecar run`: the source that the settings name, until an
operator repoints it.

A repoint is kept in the state folder, and holds after a restart with the same settings. If the
hub refuses a token that it brought, nothing can make that one good again; if the endpoint refuses
a run token that never was good, it was the wrong one. Then what the settings name is asked again,
and `health` says so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio

from sidecar.bell import Bell
from sidecar.clock import Clock
from sidecar.errors import CallError, ChannelError, RunTokenRefused
from sidecar.threads import in_thread
from sidecar.tokens.forms import Token, url_for_log
from sidecar.tokens.hooks import TokenHooks
from sidecar.tokens.repoint import (
    ENDPOINT,
    Hosts,
    Repoint,
    parse_request,
    read_note,
    remove_note,
    write_note,
)
from sidecar.tokens.source import Source, TokenStatus

_log = logging.getLogger(__name__)


class SwitchProvider:
    """`make` makes the source of a repoint. `made_for` is a digest of the settings."""

    def __init__(
        self,
        base: Source,
        make: Callable[[Repoint], Source],
        *,
        folder: Path,
        made_for: str,
        run: str,
        hosts: Hosts,
        learns_hosts: bool,
        hub_url: str | None,
        endpoint: str | None,
        allow_plain: bool,
        clock: Clock,
        hooks: TokenHooks,
    ) -> None:
        self._base = self._source = base
        self._make = make
        self._folder = folder
        self._made_for = made_for
        self._run = run
        self._hosts = hosts
        self._learns_hosts = learns_hosts
        self._base_endpoint = endpoint
        self._allow_plain = allow_plain
        self._clock = clock
        self.hooks = hooks
        self._repoint: Repoint | None = None
        self._hub_url = hub_url
        self._switched = Bell()
        self._turns = 0  # how often the source was switched
        self._is_restored = False
        self._is_unproven = False  # switched, and the hub has taken no token since
        self._fell_back: str | None = None
        self._one_note_at_a_time = anyio.Lock()

    # the provider -------------------------------------------------------------------------

    async def token(self) -> Token:
        await self._restore()
        source = self._source
        try:
            token = await source.token()
        except RunTokenRefused as error:
            if self._is_unproven and self._repoint is not None and self._source is source:
                self._go_back(f"the endpoint does not take what we were repointed to ({error})")
            raise
        self._hub_url = token.url
        if self._learns_hosts and source is self._base:
            self._hosts.add(token.url)
        return token

    async def changed(self) -> None:
        turn = self._turns
        async with anyio.create_task_group() as group:
            group.start_soon(_first, self._source.changed, group.cancel_scope)
            while self._turns == turn:
                await self._switched.wait()
            group.cancel_scope.cancel()

    def used(self, token: Token) -> None:
        self._source.used(token)
        if self._is_unproven:
            self._is_unproven = False
            self.hooks.accepted()

    def refused(self, token: Token, error: ChannelError) -> None:
        self._source.refused(token, error)
        if self._repoint is not None and self._repoint.kind != ENDPOINT:
            self._go_back(f"the hub does not take what we were repointed to ({error})")

    async def run(self) -> None:
        """What the source has to do in the background, until cancelled."""
        while True:
            turn = self._turns
            if self._fell_back is not None:
                await self._forget()
            async with anyio.create_task_group() as group:
                group.start_soon(self._source.run)
                while self._turns == turn:
                    await self._switched.wait()
                group.cancel_scope.cancel()

    def status(self) -> TokenStatus:
        status = self._source.status()
        if self._repoint is not None:
            return replace(status, source=f"repointed to {self._repoint.kind}")
        if self._fell_back is not None:
            failure = "; ".join(filter(None, [self._fell_back, status.failure]))
            return replace(status, failure=failure)
        return status

    # the operator -------------------------------------------------------------------------

    async def repoint(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """The operation `repoint` of the admin socket. What it refuses changes nothing."""
        try:
            asked = parse_request(
                request,
                run=self._run,
                hub_url=self._hub_url,
                endpoint=self._endpoint(),
                hosts=self._hosts,
                allow_plain=self._allow_plain,
                wall=self._clock.wall(),
            )
        except CallError as error:
            return {"error": str(error.code), "message": error.message}
        kept = await self._keep(asked)
        self._is_restored = True
        self._use(asked)
        _log.warning("repointed to the %s %s", asked.kind, url_for_log(asked.url))
        self.hooks.switched()
        return {"repointed": asked.kind, "url": url_for_log(asked.url), "kept": kept}

    def _endpoint(self) -> str | None:
        if self._repoint is None:
            return self._base_endpoint
        return self._repoint.url if self._repoint.kind == ENDPOINT else None

    async def _keep(self, asked: Repoint) -> bool:
        """Whether it will survive a restart. A disk that fails is no reason to stay away."""
        try:
            async with self._one_note_at_a_time:
                await in_thread(lambda: write_note(self._folder, asked, made_for=self._made_for))
        except OSError as error:
            _log.error("a restart will forget this repoint: %s", error.strerror)
            return False
        return True

    async def _forget(self) -> None:
        """A restart need not try again what was refused."""
        async with self._one_note_at_a_time:
            if self._repoint is None:
                await in_thread(remove_note, self._folder)

    async def _restore(self) -> None:
        """Once, before the first token: what we were repointed to before a restart."""
        if self._is_restored:
            return
        noted = await in_thread(lambda: read_note(self._folder, made_for=self._made_for))
        if noted is not None and not self._is_restored and self._may_restore(noted):
            self._use(noted)
            _log.warning("still repointed to the %s %s", noted.kind, url_for_log(noted.url))
        self._is_restored = True

    def _may_restore(self, noted: Repoint) -> bool:
        """The list of hosts may be another one now; without a list, it was allowed before."""
        if self._learns_hosts:
            self._hosts.add(noted.url)
            return True
        try:
            self._hosts.check(noted.url)
        except CallError as error:
            _log.warning("not repointed any more: %s", error.message)
            return False
        return True

    def _use(self, repoint: Repoint) -> None:
        self._repoint, self._fell_back = repoint, None
        self._is_unproven = True
        self._turn_to(self._make(repoint))

    def _go_back(self, why: str) -> None:
        _log.error("%s: back to what the settings name", why)
        self._fell_back = why
        self._is_unproven = True
        self._repoint = None
        self._turn_to(self._base)

    def _turn_to(self, source: Source) -> None:
        self._source = source
        self._turns += 1
        self._switched.ring()


async def _first(wait: Callable[[], Any], scope: anyio.CancelScope) -> None:
    await wait()
    scope.cancel()
