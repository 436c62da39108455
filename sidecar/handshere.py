"""Hands in the process of the sidecar: it acts itself."""

from __future__ import annotations

from contextlib import AsyncExitStack

from sidecar.hands.interface import Hands
from sidecar.hands.local.environment import Environment
from sidecar.hands.local.hands import LocalHands
from sidecar.hands.rootlist import parse_roots
from sidecar.parts import Parts


async def open_hands(parts: Parts, stack: AsyncExitStack) -> tuple[Hands, None]:
    """Hands on the workspace, closed with `stack`; nothing has to be run for it."""
    settings = parts.settings
    environment: Environment = "inherited" if settings.environment == "inherited" else "clean"
    opened = LocalHands.open_root(
        settings.workspace,
        roots=parse_roots(settings.roots),
        environment=environment,
        cgroup=settings.cgroup or None,
        adopt=True,
    )
    return await stack.enter_async_context(opened), None
