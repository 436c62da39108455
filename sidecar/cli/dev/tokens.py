"""Tokens in `sidecar dev`: a first run token for its sidecar, a Unix socket for the verbs.

The sidecar gets and renews its tokens as it would from a platform, at the endpoint of our hub.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sidecar.client import new_controller_id
from sidecar.errors import CallError
from sidecar.hub import Hub
from sidecar.protocol.names import Scope, controller_grant, sidecar_grant

LIFETIME = 300.0  # seconds
LONGEST = 86400.0  # seconds that a token may be asked for


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

    def _token(self, grant: Any, lifetime: float) -> dict[str, Any]:
        return {
            "run": self._run,
            "url": self._hub.address.client_url,
            "token": self._hub.mint(grant, lifetime),
            "expires_at": self._hub.clock.wall() + lifetime,
        }


def write_first_run_token(folder: Path, hub: Hub, run: str) -> Path:
    """The run token that the sidecar starts with, in a file that is ours alone."""
    path = folder / "first-run-token"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(fd, "w") as file:
        file.write(hub.mint_run_token(run))
    return path
