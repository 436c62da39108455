"""Which token provider the settings name, ready for the channel."""

from __future__ import annotations

import hashlib
from pathlib import Path

from sidecar.clock import Clock
from sidecar.errors import SettingsError
from sidecar.settings import Settings
from sidecar.tokens import FixedToken, TokenFile, check_run, parse_token
from sidecar.tokens.hooks import TokenHooks
from sidecar.tokens.repoint import ENDPOINT, Hosts, Repoint
from sidecar.tokens.source import PlainSource, Source
from sidecar.tokens.switch import SwitchProvider


def token_source(
    settings: Settings, folder: Path, clock: Clock, *, incarnation: str, hooks: TokenHooks
) -> SwitchProvider:
    """The provider of `sidecar run`; it has a `run` of its own, which has to run beside it.

    Raises `SettingsError` for a URL to which no token may be sent.
    """
    maker = _Maker(settings, folder, clock, incarnation, hooks)
    base = maker.base()
    hosts = Hosts(settings.hosts.split(","))
    if not settings.hosts:
        for url in (settings.hub, settings.endpoint, settings.token):
            if "://" in url:
                hosts.add(url)
    return SwitchProvider(
        base,
        maker.repointed,
        folder=folder,
        made_for=fingerprint(settings),
        run=settings.run,
        hosts=hosts,
        learns_hosts=not settings.hosts,
        hub_url=settings.hub or None,
        endpoint=settings.endpoint.rstrip("/") or None,
        allow_plain=settings.insecure,
        clock=clock,
        hooks=hooks,
    )


def fingerprint(settings: Settings) -> str:
    """Changes when the settings name another source; shows nothing of what they hold."""
    named = (
        settings.hub,
        settings.endpoint,
        settings.token_file,
        settings.token,
        settings.run_token_file,
        settings.run_token,
    )
    return hashlib.sha256(repr(named).encode()).hexdigest()


class _Maker:
    """Makes the sources, each with all that it needs."""

    def __init__(
        self, settings: Settings, folder: Path, clock: Clock, incarnation: str, hooks: TokenHooks
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._clock = clock
        self._incarnation = incarnation
        self._hooks = hooks

    def base(self) -> Source:
        """What the settings name."""
        settings, plain = self._settings, self._settings.insecure
        if settings.endpoint:
            first_file = Path(settings.run_token_file) if settings.run_token_file else None
            return self._endpoint(settings.endpoint, settings.run_token, first_file)
        hub = settings.hub or None
        if settings.token_file:
            file = TokenFile(
                settings.token_file, hub, run=settings.run, allow_plain=plain, clock=self._clock
            )
            return PlainSource("file", file, clock=self._clock, hooks=self._hooks)
        try:
            token = check_run(parse_token(settings.token, hub, allow_plain=plain), settings.run)
        except SettingsError as error:
            raise SettingsError(f"SIDECAR_TOKEN: {error}") from None
        return self._fixed(token.url, token.value)

    def repointed(self, repoint: Repoint) -> Source:
        """What an operator asked for."""
        if repoint.kind == ENDPOINT:
            return self._endpoint(repoint.url, repoint.token, None)
        return self._fixed(repoint.url, repoint.token)

    def _fixed(self, url: str, value: str) -> Source:
        provider = FixedToken(url, value, allow_plain=self._settings.insecure)
        return PlainSource("fixed", provider, clock=self._clock, hooks=self._hooks)

    def _endpoint(self, url: str, first: str, first_file: Path | None) -> Source:
        # Nobody loads this who has a token file.
        from sidecar.platform.client import PlatformClient
        from sidecar.platform.provider import EndpointProvider
        from sidecar.platform.runtoken import RunTokenStore

        return EndpointProvider(
            PlatformClient(url),
            RunTokenStore(self._folder, first=first, first_file=first_file),
            run=self._settings.run,
            incarnation=self._incarnation,
            clock=self._clock,
            hooks=self._hooks,
            allow_plain=self._settings.insecure,
        )
