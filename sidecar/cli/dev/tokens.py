"""Tokens in `sidecar dev`: a file for its sidecar, a Unix socket for the verbs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from sidecar.client import new_controller_id
from sidecar.errors import CallError
from sidecar.hub import Hub
from sidecar.protocol.names import Scope, controller_grant, sidecar_grant

LIFETIME = 300.0  # seconds
LONGEST = 86400.0  # seconds that a token may be asked for
RENEW_AFTER = 120.0  # seconds; well before its end, which a laptop may sleep through
LOOK = 5.0  # seconds between two looks at the calendar, which goes on while a laptop sleeps


class Minter:
    """Mints what the embedded hub accepts, for one run."""

    def __init__(self, hub: Hub, run: str) -> None:
        self._hub = hub
        self._run = run

    async def answer(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """The operation `token`: for a controller, a new one unless named, or the sidecar."""
        try:
            lifetime = min(max(float(request.get("lifetime") or LIFETIME), 1.0), LONGEST)
            if request.get("sidecar"):
                return self._token(sidecar_grant(self._run), lifetime)
            controller = request.get("controller") or new_controller_id()
            scope = Scope.WATCH if request.get("watch") else Scope.FULL
            grant = controller_grant(controller, [self._run], scope)
            return {"controller": controller, **self._token(grant, lifetime)}
        except (CallError, ValueError, TypeError, OverflowError) as error:
            return {"error": "invalid", "message": str(error)}

    def for_sidecar(self) -> dict[str, Any]:
        """What goes into the sidecar's token file."""
        return self._token(sidecar_grant(self._run), LIFETIME)

    def _token(self, grant: Any, lifetime: float) -> dict[str, Any]:
        return {
            "run": self._run,
            "url": self._hub.address.client_url,
            "token": self._hub.mint(grant, lifetime),
            "expires_at": self._hub.clock.wall() + lifetime,
        }


class SidecarTokenFile:
    """The file that the sidecar reads at every dial, kept fresh."""

    def __init__(self, path: Path, minter: Minter, hub: Hub) -> None:
        self.path = path
        self._minter = minter
        self._clock = hub.clock
        self._written = 0.0

    def write(self) -> None:
        """Replace it; a reader sees the old or the new one, whole."""
        self._written = self._clock.wall()
        beside = self.path.with_suffix(".new")
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(fd, "w") as file:
            json.dump(self._minter.for_sidecar(), file)
        beside.replace(self.path)

    async def keep_fresh(self) -> None:
        """Until cancelled."""
        while True:
            await anyio.sleep(LOOK)
            if abs(self._clock.wall() - self._written) >= RENEW_AFTER:
                await anyio.to_thread.run_sync(self.write)
