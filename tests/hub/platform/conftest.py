"""A hub with the platform endpoint, and somebody who calls it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from sidecar.clock import ManualClock
from sidecar.hub import Hub


class Caller:
    """Calls the endpoint of one hub."""

    def __init__(self, hub: Hub, client: httpx.AsyncClient) -> None:
        self.hub = hub
        self._client = client

    async def __call__(
        self, method: str, path: str, bearer: str | None = None, **options: Any
    ) -> httpx.Response:
        headers = {} if bearer is None else {"Authorization": f"Bearer {bearer}".encode("latin-1")}
        url = f"{self.hub.address.endpoint}/v1/{path}"
        return await self._client.request(method, url, headers=headers, **options)

    async def renew(
        self,
        bearer: str,
        incarnation: str = "a",
        *,
        run: str = "demo",
        reason: str = "refresh",
    ) -> httpx.Response:
        body = {"run": run, "incarnation": incarnation, "reason": reason}
        return await self("POST", "token", bearer, json=body)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def hub(serving: Any, clock: ManualClock) -> Hub:
    hub, _ = await serving(clock, platform=True)
    return hub


@pytest.fixture
async def call(hub: Hub) -> AsyncIterator[Caller]:
    async with httpx.AsyncClient(trust_env=False) as client:
        yield Caller(hub, client)


@pytest.fixture
def key(hub: Hub) -> str:
    """A platform key."""
    return hub.platform.add_key()
