"""Hands in a process of its own, which may come and go: what the sidecar does about it.

Each time that it connects, the event `hands.connected` says who it is, hello says how far it is
from us (`trust`), and programs that it has are gone on with. `hands.away` says that it went, or
that it is not there at the start.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from typing import Any

from sidecar.errors import CallError
from sidecar.hands.apart.connection import Peer
from sidecar.hands.apart.remote import SocketHands
from sidecar.hands.interface import Hands
from sidecar.parts import Parts


async def open_hands(
    parts: Parts, stack: AsyncExitStack
) -> tuple[Hands, Callable[[], Coroutine[Any, Any, None]]]:
    """Hands behind a socket, hung up with `stack`; and what keeps it connected."""

    async def connected(peer: Peer) -> None:
        parts.exchange.trust(peer.trust)
        parts.emit("hands.connected", _describe(peer))
        with suppress(CallError):  # it has gone again
            await parts.means.processes.adopt_known()

    def away(why: str) -> None:
        parts.emit("hands.away", {"why": why})

    hands = SocketHands(parts.settings.hands, on_connected=connected, on_away=away)
    stack.push_async_callback(hands.aclose)
    return hands, hands.run


def _describe(peer: Peer) -> dict[str, Any]:
    return {
        "uid": peer.uid,
        "pid": peer.pid,
        "trust": peer.trust,
        "incarnation": peer.incarnation,
        "capabilities": dict(peer.capabilities),
    }
