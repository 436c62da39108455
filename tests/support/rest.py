"""The stateless platform: it speaks to a sidecar through the hub's REST, with Microsoft's SDK."""

from __future__ import annotations

from functools import partial

import anyio.to_thread
from azure.messaging.webpubsubservice import WebPubSubServiceClient

from sidecar.hub import Hub
from sidecar.protocol import envelope as wire


async def send_to_sidecar(hub: Hub, message: wire.Envelope | bytes, run: str = "demo") -> None:
    """One message to the user id of the sidecars of `run`."""
    data = message if isinstance(message, bytes) else wire.encode(message)
    address = hub.address
    with WebPubSubServiceClient.from_connection_string(
        address.connection_string, hub=address.hub
    ) as service:
        send = partial(
            service.send_to_user,
            f"sandbox:{run}",
            data,
            content_type="application/octet-stream",
        )
        await anyio.to_thread.run_sync(send)
