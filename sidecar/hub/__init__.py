"""A hub like Azure Web PubSub, embedded: for `sidecar dev`, tests and measurements.

    hub = Hub(HubSettings())
    async with serve(hub) as address:
        url = f"{address.client_url}?access_token={hub.mint(sidecar_grant('a'))}"

`hub.faults` and `hub.drop`, `close`, `forget` and `leave` break things on demand. With
`HubSettings(platform=True)` it serves a platform's endpoint too (see `platform`): what
`hub.mint_run_token("a")` gives is all that the sidecar of run `a` starts with.

It needs the extra `dev`.
"""

from __future__ import annotations

from sidecar.hub.hub import Address, Hub, HubStats
from sidecar.hub.server import serve
from sidecar.hub.settings import HubSettings

__all__ = ["Address", "Hub", "HubSettings", "HubStats", "serve"]
