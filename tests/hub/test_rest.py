"""The REST calls as a server makes them, status by status."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import jwt
import pytest

from sidecar.hub import Hub
from sidecar.protocol.webpubsub.frames import (
    Ack,
    DataType,
    Disconnected,
    JoinGroup,
    Message,
    Ping,
    Pong,
    SendToGroup,
)

EXPIRY = 4_000_000_000


class Caller:
    """Calls one hub, with a token for each URL as the SDKs make them."""

    def __init__(self, hub: Hub, client: httpx.AsyncClient) -> None:
        self._hub = hub
        self._client = client

    async def __call__(self, method: str, path: str, **options: Any) -> httpx.Response:
        url = f"{self._hub.address.url}/api/hubs/sidecar{path}"
        request = self._client.build_request(method, url, **options)
        claims = {"aud": str(request.url), "exp": EXPIRY}
        token = jwt.encode(claims, self._hub.access_key, algorithm="HS256")
        request.headers["Authorization"] = f"Bearer {token}"
        return await self._client.send(request)

    async def status(self, method: str, path: str, **options: Any) -> int:
        return (await self(method, path, **options)).status_code


@pytest.fixture
async def call(hub: Hub) -> AsyncIterator[Caller]:
    async with httpx.AsyncClient(trust_env=False) as client:
        yield Caller(hub, client)


async def test_a_message_to_a_user_reaches_all_connections_also_a_detached_one(
    hub: Hub, dial: Any, call: Caller
) -> None:
    first, second, other = [await dial(hub, user) for user in ("u", "u", "v")]
    await hub.drop(first.connected.connection_id)
    assert await call.status("POST", "/users/u/:send", json={"op": "exec"}) == 202
    expected = Message("server", b'{"op":"exec"}', data_type=DataType.JSON, sequence_id=1)
    assert await second.message() == expected
    again = await dial(hub, query=first.recovery)
    assert await again.message() == expected
    await other.send(Ping())
    assert await other.receive() == Pong()


async def test_a_message_to_a_group_comes_from_the_group_without_a_user(
    hub: Hub, dial: Any, call: Caller
) -> None:
    peer = await dial(hub, "u", ("g",), protocol="json.reliable.webpubsub.azure.v1")
    status = await call.status("POST", "/groups/g/:send", content=b"\0\1", headers=OCTETS)
    assert status == 202
    assert await peer.message() == Message("group", b"\0\1", "g", sequence_id=1)


OCTETS = {"content-type": "application/octet-stream"}
TEXT = {"content-type": "text/plain; charset=utf-8"}


async def test_a_message_to_all_may_exclude_some_and_carry_metadata(
    hub: Hub, dial: Any, call: Caller
) -> None:
    first, second = [await dial(hub, "u") for _ in range(2)]
    status = await call.status(
        "POST",
        "/:send",
        params={"excluded": ["x", first.connected.connection_id]},
        content=b"hi",
        headers=TEXT | {"X-WebPubSub-Metadata-trace": "a1"},
    )
    assert status == 202
    assert await second.message() == Message(
        "server", b"hi", data_type=DataType.TEXT, sequence_id=1, metadata={"trace": "a1"}
    )
    await first.send(Ping())
    assert await first.receive() == Pong()


async def test_a_message_to_a_connection_that_is_gone_is_accepted(call: Caller) -> None:
    assert await call.status("POST", "/connections/gone/:send", json=1) == 202


async def test_who_is_there(hub: Hub, dial: Any, call: Caller) -> None:
    peer = await dial(hub, "u", ("g",))
    here = [f"/connections/{peer.connected.connection_id}", "/users/u", "/groups/g"]
    assert [await call.status("HEAD", path) for path in here] == [200, 200, 200]
    gone = ["/connections/c", "/users/v", "/groups/G"]
    assert [await call.status("HEAD", path) for path in gone] == [404, 404, 404]


async def test_an_encoded_slash_belongs_to_the_name_as_it_is_written(
    hub: Hub, dial: Any, call: Caller
) -> None:
    await dial(hub, "u", ("g%2Fx", "a b"))
    assert await call.status("HEAD", "/groups/g%2Fx") == 200
    assert await call.status("HEAD", "/groups/a%20b") == 200
    assert await call.status("HEAD", "/groups/g%252Fx") == 200


async def test_connections_are_put_into_groups_and_taken_out(
    hub: Hub, dial: Any, call: Caller
) -> None:
    peer = await dial(hub, "u")
    member = f"/connections/{peer.connected.connection_id}"
    assert await call.status("PUT", f"/groups/g{member}") == 200
    assert await call.status("PUT", "/users/u/groups/h") == 200
    assert await call.status("HEAD", "/groups/g") == 200
    assert await call.status("DELETE", f"/groups/g{member}") == 204
    assert await call.status("HEAD", "/groups/g") == 404
    assert await call.status("DELETE", "/users/u/groups/h") == 204
    assert await call.status("HEAD", "/groups/h") == 404

    for path in (f"{member}/groups", "/users/u/groups"):
        await call.status("PUT", "/users/u/groups/h")
        assert await call.status("DELETE", path) == 204
        assert await call.status("HEAD", "/groups/h") == 404


async def test_who_is_not_there_joins_nothing_and_leaves_everything(call: Caller) -> None:
    answer = await call("PUT", "/groups/g/connections/c")
    assert answer.status_code == 404
    assert answer.headers["x-ms-error-code"] == "Error.Connection.NotExisted"
    assert answer.json()["code"] == "Error.Connection.NotExisted"
    assert await call.status("PUT", "/users/u/groups/g") == 404
    assert await call.status("DELETE", "/groups/g/connections/c") == 204


async def test_a_closed_connection_gets_what_was_sent_and_the_reason_and_is_gone(
    hub: Hub, dial: Any, call: Caller
) -> None:
    peer = await dial(hub, "u")
    path = f"/connections/{peer.connected.connection_id}"
    await call("POST", f"{path}/:send", content=b"last", headers=OCTETS)
    assert await call.status("DELETE", path, params={"reason": "done"}) == 204
    assert (await peer.message()).data == b"last"
    assert await peer.receive() == Disconnected(
        "Application server closed the connection. Reason: done"
    )
    assert await peer.close_code() == 1000
    again = await dial(hub, query=peer.recovery, greeted=False)
    assert await again.close_code() == 1008
    assert await call.status("DELETE", path) == 204


@pytest.mark.parametrize("path", ["", "/users/u", "/groups/g"])
async def test_many_are_closed_at_once_but_for_the_excluded(
    hub: Hub, dial: Any, call: Caller, path: str
) -> None:
    first, second = [await dial(hub, "u", ("g",)) for _ in range(2)]
    excluded = {"excluded": second.connected.connection_id}
    assert await call.status("POST", f"{path}/:closeConnections", params=excluded) == 204
    assert await first.close_code() == 1000
    await second.send(Ping())
    assert await second.receive() == Pong()


async def test_permissions_are_granted_and_revoked_on_a_live_connection(
    hub: Hub, dial: Any, call: Caller
) -> None:
    peer = await dial(hub, "u")
    tail = f"/connections/{peer.connected.connection_id}"
    send, join = f"/permissions/sendToGroup{tail}", f"/permissions/joinLeaveGroup{tail}"
    only_g = {"targetName": "g"}
    assert await call.status("HEAD", send, params=only_g) == 404
    assert await call.status("PUT", send, params=only_g) == 200
    assert await call.status("PUT", join) == 200
    assert await call.status("HEAD", send, params=only_g) == 200
    assert await call.status("HEAD", send) == 404
    assert await peer.ask(SendToGroup("g", b"", 1)) == Ack(1, True)
    assert await peer.ask(JoinGroup("h", 2)) == Ack(2, True)

    assert await call.status("DELETE", send, params=only_g) == 204
    assert await call.status("DELETE", join) == 204
    assert (await peer.ask(SendToGroup("g", b"", 3))).error_name == "Forbidden"
    assert (await peer.ask(JoinGroup("i", 4))).error_name == "Forbidden"
    assert await call.status("HEAD", "/groups/h") == 200  # a revoked right evicts nobody
    assert await call.status("PUT", "/permissions/sendToGroup/connections/c") == 404
    assert await call.status("DELETE", "/permissions/sendToGroup/connections/c") == 204


@pytest.mark.parametrize(
    "options, status",
    [
        pytest.param({"content": b"x", "headers": {"content-type": "text/html"}}, 415, id="type"),
        pytest.param({"content": b"x"}, 415, id="no-type"),
        pytest.param(
            {"content": b"{", "headers": {"content-type": "application/json"}}, 400, id="json"
        ),
        pytest.param({"content": b"\xff", "headers": TEXT}, 400, id="utf8"),
        pytest.param({"content": bytes((1 << 20) + 1), "headers": OCTETS}, 413, id="size"),
        pytest.param({"json": 1, "params": {"messageTtlSeconds": "301"}}, 400, id="ttl"),
        pytest.param({"json": 1, "params": {"messageTtlSeconds": "soon"}}, 400, id="ttl-text"),
        pytest.param({"json": 1, "params": {"filter": "userId eq 'u'"}}, 400, id="filter"),
        pytest.param({"json": 1, "params": {"api-version": "1999-01-01"}}, 400, id="version"),
        pytest.param({"json": 1, "params": {"api-version": "2024-01-01"}}, 202, id="fine"),
    ],
)
async def test_bad_requests_are_told_apart(
    call: Caller, options: dict[str, Any], status: int
) -> None:
    answer = await call("POST", "/:send", **options)
    assert answer.status_code == status
    if status != 202:
        assert set(answer.json()) == {"code", "message"}


@pytest.mark.parametrize("path", ["/nonsense", "/users/u", "/users/u/:close", "/:send"])
async def test_other_operations_are_not_found(call: Caller, path: str) -> None:
    assert await call.status("GET", path) == 404


async def test_a_rest_token_must_be_made_for_the_url(hub: Hub) -> None:
    url = f"{hub.address.url}/api/hubs/sidecar/users/u"
    for audience, expiry in [(f"{url}2", EXPIRY), (url, 1)]:
        token = jwt.encode({"aud": audience, "exp": expiry}, hub.access_key, algorithm="HS256")
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.head(url, headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 401
        assert answer.headers["x-ms-error-code"] == "Unauthorized"
