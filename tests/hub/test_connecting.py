"""Who gets in, what the first frames are, and what the close codes mean."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import httpx
import jwt
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from sidecar.errors import SettingsError
from sidecar.hub import Hub, HubSettings, serve
from sidecar.protocol.names import Grant, controller_grant, sidecar_grant
from sidecar.protocol.webpubsub.frames import (
    JSON_SUBPROTOCOL,
    PROTOBUF_SUBPROTOCOL,
    Ack,
    JoinGroup,
    Ping,
    Pong,
    SendToGroup,
)

ALL_SUBPROTOCOLS = [
    "json.webpubsub.azure.v1",
    "json.reliable.webpubsub.azure.v1",
    "protobuf.webpubsub.azure.v1",
    "protobuf.reliable.webpubsub.azure.v1",
]
WELCOME = Grant("u", (), ())


async def status_of(url: str, **options: Any) -> int:
    """The HTTP status by which the upgrade was refused."""
    options.setdefault("subprotocols", [PROTOBUF_SUBPROTOCOL])
    with pytest.raises(InvalidStatus) as caught:
        async with connect(url, **options):
            pass
    return caught.value.response.status_code


@pytest.mark.parametrize("protocol", ALL_SUBPROTOCOLS)
async def test_connected_comes_first(hub: Hub, dial: Any, protocol: str) -> None:
    peer = await dial(hub, "u", protocol=protocol)
    assert peer.websocket.subprotocol == protocol
    assert peer.connected.user_id == "u"
    assert peer.connected.connection_id
    assert (peer.connected.reconnection_token is not None) == ("reliable" in protocol)


async def test_the_spelling_of_the_subprotocol_is_echoed(hub: Hub) -> None:
    url = f"{hub.address.client_url}?access_token={hub.mint(WELCOME)}"
    async with connect(url, subprotocols=["JSON.webpubsub.azure.V1"]) as websocket:
        assert websocket.subprotocol == "JSON.webpubsub.azure.V1"


async def test_the_hub_may_be_named_in_the_query_and_the_token_in_a_header(hub: Hub) -> None:
    url = hub.address.client_url.replace("/client/hubs/sidecar", "/client/?hub=SideCar")
    async with connect(
        url,
        subprotocols=[JSON_SUBPROTOCOL],
        additional_headers={"Authorization": f"Bearer {hub.mint(WELCOME)}"},
    ) as websocket:
        assert '"connected"' in await websocket.recv()


async def test_frames_are_taken_before_connected_was_read(hub: Hub, dial: Any) -> None:
    peer = await dial(hub, greeted=False)
    await peer.send(Ping())
    await peer.receive()
    assert await peer.receive() == Pong()


@pytest.mark.parametrize("token", ["", "nonsense"])
async def test_a_missing_or_broken_token_is_refused_before_the_upgrade(
    hub: Hub, token: str
) -> None:
    assert await status_of(f"{hub.address.client_url}?access_token={token}") == 401


async def test_a_refusal_is_no_fault_of_the_hub(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    assert await status_of(f"{hub.address.client_url}?access_token=nonsense") == 401
    assert [record.getMessage() for record in caplog.records] == []


async def test_an_expired_token_is_refused(hub: Hub) -> None:
    token = hub.mint(WELCOME, lifetime=-1)
    assert await status_of(f"{hub.address.client_url}?access_token={token}") == 401


async def test_a_token_for_another_hub_is_refused(hub: Hub) -> None:
    claims = {"aud": f"{hub.address.url}/client/hubs/other", "exp": 2e9}
    token = jwt.encode(claims, hub.access_key, algorithm="HS256")
    assert await status_of(f"{hub.address.client_url}?access_token={token}") == 401


async def test_a_group_claim_that_names_no_group_is_a_bad_request(hub: Hub) -> None:
    token = hub.mint(Grant("u", (" ",), ()))
    assert await status_of(f"{hub.address.client_url}?access_token={token}") == 400


async def test_a_client_without_a_known_subprotocol_is_refused(hub: Hub) -> None:
    url = f"{hub.address.client_url}?access_token={hub.mint(WELCOME)}"
    assert await status_of(url, subprotocols=["mqtt"]) == 400
    assert await status_of(url, subprotocols=None) == 400


async def test_another_hub_is_not_here(hub: Hub) -> None:
    url = hub.address.client_url.replace("sidecar", "other")
    assert await status_of(f"{url}?access_token={hub.mint(WELCOME)}") == 404


async def test_a_token_is_good_behind_another_name_of_the_host(serving: Any) -> None:
    hub, _ = await serving(endpoint="http://hub.example:8080")
    assert hub.address.client_url == "ws://hub.example:8080/client/hubs/sidecar"
    url = f"ws://127.0.0.1:{hub.port}/client/hubs/sidecar?access_token={hub.mint(WELCOME)}"
    async with connect(url, subprotocols=[PROTOBUF_SUBPROTOCOL]) as websocket:
        assert await websocket.recv()


async def test_our_own_tokens_reach_exactly_their_run(hub: Hub, dial: Any) -> None:
    sidecar, controller = sidecar_grant("a"), controller_grant("c", ["a"])
    inside = await dial(hub, sidecar.user_id, sidecar.groups, sidecar.roles)
    outside = await dial(hub, controller.user_id, controller.groups, controller.roles)

    assert await outside.ask(SendToGroup("in.a", b"call", 1)) == Ack(1, True)
    assert (await inside.message()).group == "in.a"
    assert await inside.ask(SendToGroup("out.a.c", b"answer", 1)) == Ack(1, True)
    assert (await outside.message()).data == b"answer"
    for frame in (
        SendToGroup("out.b", b"", 2),
        SendToGroup("out.a.c.d", b"", 2),
        SendToGroup("in.a", b"", 2),
        JoinGroup("in.b", 2),
    ):
        assert (await inside.ask(frame)).error_name == "Forbidden"
    assert (await outside.ask(SendToGroup("in.b", b"", 2))).error_name == "Forbidden"


@pytest.mark.parametrize(
    "protocol, message, code",
    [
        pytest.param(JSON_SUBPROTOCOL, b"{}", 1003, id="binary-for-json"),
        pytest.param(PROTOBUF_SUBPROTOCOL, "{}", 1003, id="text-for-protobuf"),
        pytest.param(JSON_SUBPROTOCOL, "{", 1007, id="not-json"),
        pytest.param(JSON_SUBPROTOCOL, '{"type":"invoke"}', 1007, id="unknown-type"),
        pytest.param(PROTOBUF_SUBPROTOCOL, b"\xff", 1007, id="not-protobuf"),
        pytest.param(PROTOBUF_SUBPROTOCOL, b"\x52\x00", 1007, id="unknown-kind"),
    ],
)
async def test_broken_frames_close_the_connection_and_end_its_session(
    hub: Hub, dial: Any, protocol: str, message: bytes | str, code: int
) -> None:
    peer = await dial(hub, protocol=protocol)
    await peer.websocket.send(message)
    assert await peer.close_code() == code
    assert hub.stats().sessions == 0


async def test_a_message_over_the_limit_closes_with_1009_and_ends_the_session(
    hub: Hub, dial: Any
) -> None:
    peer = await dial(hub, "u", (), ("webpubsub.sendToGroup",))
    largest = (1 << 20) - peer.codec.overhead("g", 0)
    assert (await peer.ask(SendToGroup("g", bytes(largest), 1))).success

    await peer.websocket.send(bytes((1 << 20) + 1))
    assert await peer.close_code() == 1009
    again = await dial(hub, query=peer.recovery, greeted=False)
    assert await again.close_code() == 1008


async def test_a_client_that_closes_with_1000_is_gone(hub: Hub, dial: Any) -> None:
    peer = await dial(hub)
    await peer.websocket.close(1000)
    again = await dial(hub, query=peer.recovery, greeted=False)
    assert await again.close_code() == 1008
    assert hub.stats().sessions == 0


async def test_a_peer_that_answers_no_ping_is_cut_off_and_can_recover(
    serving: Any, dial: Any, until: Any
) -> None:
    hub, _ = await serving(ping_interval=0.05, ping_timeout=0.05)
    peer = await dial(hub)
    peer.websocket.transport.pause_reading()
    await until(lambda: hub.stats().connections == 0)
    assert (await dial(hub, query=peer.recovery)).connected.user_id == "u"


async def test_stopping_the_hub_says_so_to_its_clients() -> None:
    hub = Hub()
    async with AsyncExitStack() as stack:
        async with serve(hub) as address:
            url = f"{address.client_url}?access_token={hub.mint(WELCOME)}"
            websocket = await stack.enter_async_context(
                connect(url, subprotocols=[PROTOBUF_SUBPROTOCOL])
            )
            await websocket.recv()
        with pytest.raises(ConnectionClosed) as closed:
            await websocket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012


async def test_an_error_in_the_block_comes_out_as_it_was() -> None:
    with pytest.raises(KeyError):
        async with serve(Hub()):
            raise KeyError


async def test_a_taken_port_is_named(hub: Hub) -> None:
    other = Hub(HubSettings(port=hub.port))
    with pytest.raises(SettingsError, match=f"cannot listen on 127.0.0.1:{hub.port}"):
        async with serve(other):
            pass


def test_settings_say_what_is_wrong() -> None:
    with pytest.raises(SettingsError, match="hub name '1x'"):
        HubSettings(hub="1x")
    with pytest.raises(SettingsError, match="shorter than 32"):
        HubSettings(access_key="secret")
    with pytest.raises(SettingsError, match="no address"):
        Hub().mint(WELCOME)


async def test_the_access_key_is_not_printed(serving: Any) -> None:
    hub, address = await serving(access_key="s" * 40)
    assert "sss" not in f"{hub.settings!r} {address!r} {hub!r}"
    assert address.connection_string == f"Endpoint={address.url};AccessKey={'s' * 40};Version=1.0;"


async def test_health_needs_no_token(hub: Hub) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.head(f"{hub.address.url}/api/health")).status_code == 200
        assert (await client.head(f"{hub.address.url}/api/hubs/sidecar/users/u")).status_code == 401
