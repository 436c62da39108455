"""Everything about the hub that can be set, and the limits of the service it stands in for.

Sizes are bytes, times seconds. What happens at each limit:

    message over `max_message`           the connection is closed (1009), its session ends
    `max_unacked_messages` or `_bytes`   the connection is closed (1008), its session ends
    `retention` after a drop             the session ends; recovery is refused (1008)
    no pong for `ping_timeout`           the connection is aborted; its session stays
    `MAX_WAITING_REPLIES`                the client is not read from until they are written
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from sidecar.errors import SettingsError

HUB_PATTERN = r"[A-Za-z][A-Za-z0-9_`,.\[\]]{0,127}"  # data plane swagger, parameter `hub`

MAX_WAITING_REPLIES = 256  # acks and pongs that wait for the socket of one connection
MIN_KEY = 32  # bytes; RFC 7518 §3.2 for HS256
CLOSE_GRACE = 2.0  # seconds that a peer has to take a close frame before it is cut off


@dataclass(frozen=True, slots=True)
class HubSettings:
    """How the embedded hub listens and what it allows; the defaults are the service's limits."""

    host: str = "127.0.0.1"
    port: int = 0  # 0: any free one
    hub: str = "sidecar"
    access_key: str | None = field(default=None, repr=False)  # None: a random one
    endpoint: str | None = None  # the URL that others reach it by, if not http://host:port
    retention: float = 30.0
    max_message: int = 1 << 20
    max_unacked_messages: int = 1000
    max_unacked_bytes: int = 16 << 20
    ping_interval: float = 20.0
    ping_timeout: float = 20.0
    faults: bool = False  # serve `/faults` (see `faultrest`)
    platform: bool = False  # serve the platform endpoint, `/platform`
    platform_state: Path | None = None  # where the endpoint keeps its state; None: in memory
    token_life: float = 300.0  # of the hub tokens that sidecars get from the endpoint
    run_token_life: float = 3600.0  # of a run token that nobody uses

    def __post_init__(self) -> None:
        if not re.fullmatch(HUB_PATTERN, self.hub):
            raise SettingsError(f"hub name {self.hub!r}; expected {HUB_PATTERN}")
        if self.access_key is not None and len(self.access_key.encode()) < MIN_KEY:
            raise SettingsError(f"the access key is shorter than {MIN_KEY} bytes")
        if self.token_life < 1 or self.run_token_life < self.token_life:
            raise SettingsError(
                f"tokens of {self.token_life} s, run tokens of {self.run_token_life} s: at least"
                " 1 s, and a run token must outlive the token that it came with"
            )
