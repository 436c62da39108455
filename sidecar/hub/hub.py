"""The embedded hub: a stand-in for Azure Web PubSub inside this process.

It serves one hub of that service over the same subprotocols and the same REST paths, for
`sidecar dev`, tests and measurements. This file ties settings, tokens, clock and relay together
and is what other code holds; `server` puts it on a port.

`drop`, `close`, `forget` and `leave` are faults: they do to clients what networks and the
service's maintenance do, at once; those of `faults` stand until they strike.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass

from sidecar.clock import Clock, SystemClock
from sidecar.errors import CallError, SettingsError
from sidecar.hub.faults import EXPIRED, EXPIRED_REASON, Faults, check_close_code
from sidecar.hub.link import SocketLink
from sidecar.hub.permissions import Permissions, check_group
from sidecar.hub.platform import Platform
from sidecar.hub.relay import Relay, Traffic
from sidecar.hub.session import HubSession
from sidecar.hub.settings import HubSettings
from sidecar.hub.tokens import Access, TokenError, Tokens, client_audiences
from sidecar.protocol.names import Grant, check_id
from sidecar.protocol.webpubsub import RELIABLE_SUBPROTOCOLS
from sidecar.protocol.webpubsub.frames import Codec, Connected


@dataclass(frozen=True, slots=True)
class Address:
    """Where the hub is reached; `connection_string` holds the access key."""

    url: str
    hub: str
    access_key: str

    def __repr__(self) -> str:
        return f"Address(url={self.url!r}, hub={self.hub!r})"

    @property
    def client_url(self) -> str:
        """Where clients dial, without a token."""
        return f"ws{self.url.removeprefix('http')}/client/hubs/{self.hub}"

    @property
    def endpoint(self) -> str:
        """Where sidecars get their tokens, if the hub serves the platform endpoint."""
        return f"{self.url}/platform"

    @property
    def connection_string(self) -> str:
        """What the Azure SDKs for servers take."""
        return f"Endpoint={self.url};AccessKey={self.access_key};Version=1.0;"


@dataclass(frozen=True, slots=True)
class Admission:
    """A token that has been checked, down to its roles."""

    access: Access
    permissions: Permissions


@dataclass(frozen=True, slots=True)
class HubStats:
    """A count of what is there and what went through."""

    connections: int
    sessions: int
    traffic: Traffic


class Hub:
    """One hub. Make it, then `async with serve(hub) as address`."""

    def __init__(self, settings: HubSettings | None = None, clock: Clock | None = None) -> None:
        self.settings = settings or HubSettings()
        self.clock = clock or SystemClock()
        self.access_key = self.settings.access_key or secrets.token_urlsafe(32)
        self.tokens = Tokens(self.access_key)
        self.faults = Faults()
        self.relay = Relay(self.settings, self.faults)
        self.platform = Platform(run_token_life=self.settings.run_token_life)
        self._links: set[SocketLink] = set()
        self._address: Address | None = None
        self._port = 0
        self._cut_all: Callable[[], None] = lambda: None

    @property
    def address(self) -> Address:
        if self._address is None:
            raise SettingsError("the hub has no address before it is served")
        return self._address

    @property
    def port(self) -> int:
        """The port that was bound, whatever the endpoint says."""
        return self._port

    def listen_at(self, host: str, port: int, cut_all: Callable[[], None]) -> Address:
        """Called by the server with what it has bound, and how to cut every connection there."""
        settings = self.settings
        self._port = port
        self._cut_all = cut_all
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        url = settings.endpoint.rstrip("/") if settings.endpoint else url
        self._address = Address(url, settings.hub, self.access_key)
        return self._address

    def mint(self, grant: Grant, lifetime: float = 300.0) -> str:
        """An access token for `grant`, good for `lifetime` seconds of connecting."""
        (audience, _) = client_audiences([self._host], self.settings.hub)
        return self.tokens.mint_access(grant, audience, lifetime=lifetime, now=self.clock.wall())

    def mint_run_token(self, run: str) -> str:
        """What the sidecar of `run` starts with, at the platform endpoint of this hub."""
        if not self.settings.platform:
            raise SettingsError("this hub does not serve the platform endpoint")
        return self.platform.mint(check_id(run, "run id"), now=self.clock.now())

    def stats(self) -> HubStats:
        return HubStats(len(self._links), len(self.relay.registry), self.relay.traffic)

    # faults

    @property
    def ack_delay(self) -> float:
        """Seconds by which every ack is held back; infinite withholds them."""
        return self.faults.ack_delay

    @ack_delay.setter
    def ack_delay(self, seconds: float) -> None:
        self.faults.ack_delay = seconds

    async def drop(self, who: str) -> int:
        """Cut the TCP connections of a user id, a pattern of them, or a connection id; how many
        there were. The sessions can be recovered."""
        links = self._links_of(who)
        for link in links:
            link.abort()
        await self._until_ended(links, "drop")
        return len(links)

    async def close(self, who: str, code: int, reason: str = "") -> int:
        """Close those connections with `code`; how many. Only 1000 ends their sessions."""
        links = self._links_of(who)
        for link in links:
            link.close(check_close_code(code), reason)
        await self._until_ended(links, "close")
        return len(links)

    def forget(self, who: str) -> int:
        """Refuse the next recovery of those sessions (1008); how many. Open connections go on."""
        sessions = self.relay.registry.find(who)
        for session in sessions:
            session.forget()
        self.faults.struck["forget"] += len(sessions)
        return len(sessions)

    async def leave(self, seconds: float, *, forget: bool = False) -> None:
        """Cut every connection, and cut each new one, for so long; does not wait for the end of
        it. Then the hub is back with its sessions, or without if they are to be forgotten."""
        if forget:
            self.forget("*")
        self.faults.leave(until=self.clock.now() + seconds)
        links = list(self._links)
        for link in links:
            link.abort()
        self._cut_all()
        await self._until_ended(links, "leave")

    @property
    def is_away(self) -> bool:
        return self.faults.is_away(now=self.clock.now())

    async def _until_ended(self, links: Collection[SocketLink], fault: str) -> None:
        self.faults.struck[fault] += len(links)
        for link in links:
            await link.ended.wait()

    def _links_of(self, who: str) -> list[SocketLink]:
        sessions = self.relay.registry.find(who)
        return [link for link in self._links if link.session in sessions]

    # what the WebSocket endpoint asks

    @property
    def _host(self) -> str:
        return self.address.url.partition("://")[2]

    def hosts(self, host_header: str | None) -> list[str]:
        """The hosts that a token may name: the one the caller dialled, and our own."""
        return [self._host] if host_header is None else [host_header, self._host]

    def check(self, token: str, host_header: str | None) -> Admission:
        """What the bearer of an access token may do; raises `TokenError`."""
        audiences = client_audiences(self.hosts(host_header), self.settings.hub)
        access = self.tokens.read_access(token, audiences, now=self.clock.wall())
        try:
            for group in access.groups:
                check_group(group)
            return Admission(access, Permissions(access.roles))
        except CallError as error:
            raise TokenError(error.message, 400) from None

    def open(self, admission: Admission, codec: Codec) -> HubSession:
        """A new session."""
        return self.relay.open(
            secrets.token_urlsafe(16),
            admission.access.user_id,
            admission.access.groups,
            admission.permissions,
            codec,
            is_reliable=codec.subprotocol in RELIABLE_SUBPROTOCOLS,
            expires_at=admission.access.expires_at,
        )

    def recover(self, connection_id: str, token: str) -> HubSession | None:
        """The session to take up again, or None if it is gone or the token is not for it."""
        session = self.relay.registry.get(connection_id)
        if session is None or not session.can_recover(now=self.clock.now()):
            return None
        try:
            self.tokens.check_reconnection(token, connection_id, now=self.clock.wall())
        except TokenError:
            return None
        return session

    def attach(self, link: SocketLink) -> None:
        """`link` is the WebSocket of its session from now on; an older one is cut off."""
        session = link.session
        if session.link is not None:
            session.link.abort()
        self._links.add(link)
        token = None
        if session.is_reliable:
            token = self.tokens.mint_reconnection(session.connection_id, now=self.clock.wall())
        session.attach(link, Connected(session.connection_id, session.user_id, token))

    def detach(self, link: SocketLink, *, is_final: bool) -> None:
        """`link` has ended; its session too if `is_final`, unless another has taken it over."""
        self._links.discard(link)
        session = link.session
        if session.link is not link:
            return
        if is_final:
            session.end()
        session.detach(now=self.clock.now())
        if not session.can_recover(now=self.clock.now()):
            self.relay.registry.remove(session)

    def expire(self) -> None:
        """End what has outlived its time."""
        self.relay.expire(now=self.clock.now())
        if self.faults.enforce_expiry:
            self._end_expired()

    def _end_expired(self) -> None:
        wall = self.clock.wall()
        for session in self.relay.registry:
            if session.expires_at <= wall:
                self.faults.struck["enforce_expiry"] += 1
                self.relay.end(session, EXPIRED, EXPIRED_REASON)
