"""Faults by REST: who may ask for them, and that each reaches the hub."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from sidecar.hub import Hub
from sidecar.hub.faults import Cut, Direction, LostAcks
from sidecar.protocol.webpubsub.frames import Ping, Pong

Ask = Callable[..., Awaitable[httpx.Response]]


@pytest.fixture
async def hub(serving: Any) -> Hub:
    hub, _ = await serving(faults=True)
    return hub


@pytest.fixture
async def ask(hub: Hub) -> AsyncIterator[Ask]:
    async with httpx.AsyncClient(trust_env=False, base_url=hub.address.url) as client:

        async def request(
            path: str, method: str = "POST", key: str | None = None, **options: Any
        ) -> httpx.Response:
            headers = {"Authorization": f"Bearer {key or hub.access_key}"}
            return await client.request(method, f"/faults{path}", headers=headers, **options)

        yield request


async def test_standing_faults_are_set_shown_and_cleared(hub: Hub, ask: Ask) -> None:
    await ask("/enforce_expiry")
    await ask("/ack_delay", json={"seconds": 0.5})
    await ask("/lose_acks", json={"count": 3, "user": "sandbox:*"})
    await ask("/cut_after", json={"after": 40, "direction": "out", "code": 1012, "times": 2})
    faults = hub.faults
    assert (faults.enforce_expiry, faults.ack_delay) == (True, 0.5)
    assert faults.lost_acks == [LostAcks(3, "sandbox:*")]
    assert faults.cuts == [Cut(40, "*", Direction.OUT, 1012, times=2)]

    shown = (await ask("", "GET")).json()
    assert (shown["enforce_expiry"], shown["ack_delay"]) == (True, 0.5)
    assert shown["lose_acks"] == [{"count": 3, "user": "sandbox:*"}]
    assert shown["cut_after"][0]["after"] == 40

    cleared = (await ask("", "DELETE")).json()
    assert (cleared["enforce_expiry"], cleared["ack_delay"]) == (False, 0.0)
    assert cleared["lose_acks"] == cleared["cut_after"] == []


async def test_acks_can_be_withheld(hub: Hub, ask: Ask) -> None:
    assert (await ask("/ack_delay", json={"seconds": None})).json()["ack_delay"] is None
    assert hub.ack_delay == float("inf")


async def test_connections_are_dropped_closed_and_forgotten(hub: Hub, ask: Ask, dial: Any) -> None:
    one, two, three = [await dial(hub, user) for user in ("a", "b", "c")]
    closed = (await ask("/close", json={"user": "a", "code": 1012, "reason": "moving"})).json()
    assert await one.close_code() == 1012
    assert (closed["connections"], closed["struck"]) == (2, {"close": 1})
    await ask("/forget", json={"user": "b"})
    dropped = (await ask("/drop", json={"user": "b"})).json()
    assert dropped["struck"] == {"close": 1, "forget": 1, "drop": 1}
    refused = await dial(hub, query=two.recovery, greeted=False)
    assert await refused.close_code() == 1008
    await three.send(Ping())
    assert await three.receive() == Pong()


async def test_the_hub_answers_before_it_goes_away(hub: Hub, ask: Ask, dial: Any) -> None:
    peer = await dial(hub)
    assert (await ask("/leave", json={"seconds": 600})).status_code == 200
    with anyio.fail_after(5), pytest.raises(ConnectionClosed):
        await peer.websocket.recv()
    with pytest.raises(httpx.TransportError):
        await ask("", "GET")
    assert hub.is_away


@pytest.mark.parametrize(
    "path, body",
    [
        ("/nothing", {}),
        ("/ack_delay", {}),
        ("/ack_delay", {"seconds": -1}),
        ("/ack_delay", {"seconds": True}),
        ("/leave", {"seconds": None}),
        ("/lose_acks", {"count": 0}),
        ("/cut_after", {"after": "40"}),
        ("/cut_after", {"after": 1, "direction": "up"}),
        ("/cut_after", {"after": 1, "code": 1006}),
        ("/close", {"code": 1005}),
        ("/drop", ["sandbox:*"]),
        ("/drop", {"user": 5}),
    ],
)
async def test_what_makes_no_sense_is_refused_and_changes_nothing(
    hub: Hub, ask: Ask, path: str, body: Any
) -> None:
    before = (await ask("", "GET")).json()
    assert (await ask(path, json=body)).status_code == 400
    assert (await ask("", "GET")).json() == before


async def test_a_body_that_is_no_json_or_too_long_is_refused(ask: Ask) -> None:
    for content in (b"{", b"[" * 4000, b" " * 5000):
        assert (await ask("/drop", content=content)).status_code == 400


async def test_without_the_key_the_path_does_not_exist(hub: Hub, ask: Ask) -> None:
    with_wrong_key = await ask("/drop", key="x" * 43)
    assert with_wrong_key.status_code == 404
    async with httpx.AsyncClient(trust_env=False, base_url=hub.address.url) as client:
        assert (await client.get("/faults")).content == with_wrong_key.content
        basic = {"Authorization": f"Basic {hub.access_key}"}
        assert (await client.get("/faults", headers=basic)).status_code == 404


async def test_faults_are_served_only_where_they_were_asked_for(serving: Any) -> None:
    hub, address = await serving()
    headers = {"Authorization": f"Bearer {hub.access_key}"}
    async with httpx.AsyncClient(trust_env=False, headers=headers) as client:
        assert (await client.get(f"{address.url}/faults")).status_code == 404
