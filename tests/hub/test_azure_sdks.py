"""Microsoft's own SDKs against the hub: what they can do here, ours may rely on there.

azure-messaging-webpubsubclient is used in its aio form; its sync form can sleep through an ack
that arrives before it waits. azure-messaging-webpubsubservice is sync and runs in a thread.
"""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from anyio.to_thread import run_sync
from azure.core.exceptions import HttpResponseError
from azure.messaging.webpubsubclient.aio import WebPubSubClient
from azure.messaging.webpubsubclient.models import (
    CallbackType,
    SendMessageError,
    WebPubSubDataType,
    WebPubSubProtocolType,
)
from azure.messaging.webpubsubservice import WebPubSubServiceClient

from sidecar.hub import Hub
from sidecar.protocol.names import Grant
from sidecar.protocol.webpubsub.frames import DataType, Message, SendToGroup

ROLES = ("webpubsub.sendToGroup", "webpubsub.joinLeaveGroup")


class Inbox:
    """What the SDK's callbacks were given."""

    def __init__(self) -> None:
        self._send, self._receive = anyio.create_memory_object_stream[Any](100)

    async def __call__(self, message: Any) -> None:
        self._send.send_nowait(message)

    async def next(self) -> Any:
        with anyio.fail_after(5):
            return await self._receive.receive()

    def close(self) -> None:
        self._send.close()
        self._receive.close()


def sdk_client(
    hub: Hub, protocol: WebPubSubProtocolType = WebPubSubProtocolType.JSON_RELIABLE
) -> WebPubSubClient:
    url = f"{hub.address.client_url}?access_token={hub.mint(Grant('sdk', (), ROLES))}"
    return WebPubSubClient(url, protocol_type=protocol, ack_timeout=5)


@pytest.mark.parametrize("protocol", list(WebPubSubProtocolType))
async def test_the_client_joins_sends_and_receives(
    hub: Hub, dial: Any, protocol: WebPubSubProtocolType
) -> None:
    ours = await dial(hub, "u", ("g",), ROLES)
    inbox = Inbox()
    client = sdk_client(hub, protocol)
    await client.subscribe(CallbackType.GROUP_MESSAGE, inbox)
    async with client:
        await client.join_group("g")
        await ours.send(SendToGroup("g", b"\x00\x01", no_echo=True))
        received = await inbox.next()
        assert (received.group, bytes(received.data)) == ("g", b"\x00\x01")

        for data, data_type in [
            ({"a": 1}, WebPubSubDataType.JSON),
            ("text", WebPubSubDataType.TEXT),
            (memoryview(b"\xff"), WebPubSubDataType.BINARY),
        ]:
            await client.send_to_group("g", data, data_type, no_echo=True)
        received = [await ours.message() for _ in range(3)]
        assert [(each.data_type, each.data) for each in received] == [
            (DataType.JSON, b'{"a":1}'),
            (DataType.TEXT, b"text"),
            (DataType.BINARY, b"\xff"),
        ]
        await client.leave_group("g")
    inbox.close()


@pytest.mark.slow
async def test_the_client_recovers_a_cut_connection(hub: Hub, dial: Any) -> None:
    sender = await dial(hub, "u", (), ROLES)
    inbox = Inbox()
    client = sdk_client(hub)
    await client.subscribe(CallbackType.GROUP_MESSAGE, inbox)
    async with client:
        await client.join_group("g")
        (session,) = hub.relay.registry.of_group("g")
        for data in (b"1", b"2", b"3"):
            await sender.send(SendToGroup("g", data))
            assert bytes((await inbox.next()).data) == data
            await hub.drop("sdk")
        await sender.send(SendToGroup("g", b"4"))
        assert bytes((await inbox.next()).data) == b"4"
        assert hub.relay.registry.of_group("g") == (session,)
    inbox.close()


async def test_the_client_is_told_what_it_may_not_do(hub: Hub) -> None:
    url = f"{hub.address.client_url}?access_token={hub.mint(Grant('sdk', (), ()))}"
    async with WebPubSubClient(url, message_retry_total=0) as client:
        with pytest.raises(SendMessageError) as caught:
            await client.join_group("g")
    assert caught.value.error_detail.name == "Forbidden"


async def test_the_service_client_sends_manages_and_closes(hub: Hub, dial: Any) -> None:
    peer = await dial(hub, "u", ("g",))
    connection_id = peer.connected.connection_id
    service = WebPubSubServiceClient.from_connection_string(
        hub.address.connection_string, hub="sidecar"
    )

    def act() -> None:
        service.send_to_user("u", {"n": 1})
        service.send_to_group("g", "two", content_type="text/plain")
        service.send_to_connection(connection_id, b"\x03", content_type="application/octet-stream")
        service.send_to_all("four", content_type="text/plain")
        assert service.user_exists("u")
        assert service.group_exists("g")
        assert not service.group_exists("h")
        assert service.connection_exists(connection_id)
        service.add_user_to_group("h", "u")
        service.remove_connection_from_group("h", connection_id)
        assert not service.group_exists("h")
        service.grant_permission("sendToGroup", connection_id, target_name="g")
        assert service.has_permission("sendToGroup", connection_id, target_name="g")
        service.revoke_permission("sendToGroup", connection_id, target_name="g")
        service.close_connection(connection_id, reason="over")
        assert not service.connection_exists(connection_id)

    with service:
        await run_sync(act)
    assert [await peer.message() for _ in range(4)] == [
        Message("server", b'{"n": 1}', None, DataType.JSON, 1),
        Message("group", b"two", "g", DataType.TEXT, 2),
        Message("server", b"\x03", None, DataType.BINARY, 3),
        Message("server", b"four", None, DataType.TEXT, 4),
    ]
    assert (await peer.receive()).reason.endswith("Reason: over")
    assert await peer.close_code() == 1000


async def test_a_token_of_the_service_client_gets_in(hub: Hub, dial: Any) -> None:
    service = WebPubSubServiceClient.from_connection_string(
        hub.address.connection_string, hub="sidecar"
    )
    with service:
        token = service.get_client_access_token(user_id="x", roles=list(ROLES), groups=["g"])
        assert token["baseUrl"] == hub.address.client_url
    peer = await dial(hub, query=f"access_token={token['token']}")
    assert (await peer.ask(SendToGroup("g", b"", 1, no_echo=True))).success


async def test_the_service_client_needs_the_right_key(hub: Hub) -> None:
    service = WebPubSubServiceClient.from_connection_string(
        f"Endpoint={hub.address.url};AccessKey={'x' * 40};Version=1.0;", hub="sidecar"
    )
    with service, pytest.raises(HttpResponseError) as caught:
        await run_sync(service.send_to_all, "x")
    assert caught.value.status_code == 401
