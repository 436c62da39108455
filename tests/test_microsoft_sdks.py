"""Microsoft's own SDKs on the platform's side: a call by REST, its answer through their client.

What works here needs nothing of ours but the wire format: a stateless platform in any language
can do the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
from anyio.to_thread import run_sync
from azure.messaging.webpubsubclient.aio import WebPubSubClient
from azure.messaging.webpubsubclient.models import CallbackType
from azure.messaging.webpubsubservice import WebPubSubServiceClient
from stack import PATIENCE, Stack, open_stack

from sidecar.clock import SystemClock
from sidecar.hub import Hub
from sidecar.identity import new_id
from sidecar.protocol import envelope as wire
from sidecar.protocol.names import Grant


def rest_client(hub: Hub) -> WebPubSubServiceClient:
    return WebPubSubServiceClient.from_connection_string(
        hub.address.connection_string, hub=hub.settings.hub
    )


async def call_by_rest(stack: Stack, command: str, arguments: Any, **options: Any) -> bytes:
    """A call sent to the sandbox's user id; its id."""
    call = wire.Call(
        new_id(SystemClock()), command, wire.dumps(arguments), reply="observer", **options
    )

    def send() -> None:
        with rest_client(stack.hub) as client:
            client.send_to_user(
                "sandbox:demo", wire.encode(call), content_type="application/octet-stream"
            )

    await run_sync(send)
    return call.id


async def test_a_call_by_rest_is_answered_to_a_client_that_joined_the_group(
    tmp_path: Path,
) -> None:
    send, receive = anyio.create_memory_object_stream[Any](100)

    async def on_message(message: Any) -> None:
        send.send_nowait(message)

    async with open_stack(tmp_path) as stack:
        role = "webpubsub.joinLeaveGroup.out.demo.observer"
        token = stack.hub.mint(Grant("control:observer", (), (role,)))
        url = f"{stack.hub.address.client_url}?access_token={token}"
        client = WebPubSubClient(url, ack_timeout=5)
        await client.subscribe(CallbackType.GROUP_MESSAGE, on_message)
        with send, receive:
            async with client:
                await client.join_group("out.demo.observer")
                arguments = {"argv": ["sh", "-c", "echo ran; exit 3"], "live": False}
                incarnation = stack.sidecar.incarnation
                id = await call_by_rest(stack, "exec.run", arguments, incarnation=incarnation)
                with anyio.fail_after(PATIENCE):
                    message = await receive.receive()

        assert message.group == "out.demo.observer"
        (result,) = wire.decode(bytes(message.data))
        assert isinstance(result, wire.Result)
        assert (result.id, result.error) == (id, None)
        assert result.value is not None
        value = wire.loads(result.value)
        assert (value["status"], value["stdout"]["data"]) == (3, b"ran\n")


async def test_a_client_that_joins_the_runs_group_sees_hello(tmp_path: Path) -> None:
    send, receive = anyio.create_memory_object_stream[Any](100)

    async def on_message(message: Any) -> None:
        send.send_nowait(message)

    async with open_stack(tmp_path, sidecars=0) as stack:
        token = stack.hub.mint(Grant("watcher", (), ("webpubsub.joinLeaveGroup.out.demo",)))
        url = f"{stack.hub.address.client_url}?access_token={token}"
        client = WebPubSubClient(url, ack_timeout=5)
        await client.subscribe(CallbackType.GROUP_MESSAGE, on_message)
        with send, receive:
            async with client:
                await client.join_group("out.demo")
                parts = await stack.start_sidecar()
                with anyio.fail_after(PATIENCE):
                    message = await receive.receive()
        (hello,) = wire.decode(bytes(message.data))
        assert isinstance(hello, wire.Hello)
        assert (hello.run, hello.incarnation) == ("demo", parts.incarnation)
