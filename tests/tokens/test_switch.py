"""The provider under the channel: what the settings name, until somebody repoints it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from endpoint import SUPERSEDED, UNAUTHORIZED, FakeEndpoint, endpoint, grant

from sidecar.clock import SystemClock
from sidecar.errors import Superseded, TokenExpired, TokenRefused
from sidecar.settings import Settings
from sidecar.tokens.hooks import TokenHooks
from sidecar.tokens.switch import SwitchProvider
from sidecar.tokensource import token_source

HUB = "wss://hub.example/client/hubs/runs"
OTHER = "wss://hub.example/client/hubs/other"


class Told:
    def __init__(self) -> None:
        self.events: list[object] = []
        self.hooks = TokenHooks(
            generation=self.events.append,
            superseded=lambda: self.events.append("superseded"),
            refused=lambda sentence: self.events.append("refused"),
            accepted=lambda: self.events.append("accepted"),
            switched=lambda: self.events.append("switched"),
        )


def client_url(token: str, hub: str = HUB) -> str:
    return f"{hub}?access_token={token}"


def make(folder: Path, told: Told | None = None, **settings: str) -> SwitchProvider:
    return token_source(
        Settings(run="demo", **settings),
        folder,
        SystemClock(),
        incarnation="i-1",
        hooks=(told or Told()).hooks,
    )


@asynccontextmanager
async def running(provider: SwitchProvider) -> AsyncIterator[SwitchProvider]:
    async with anyio.create_task_group() as group:
        group.start_soon(provider.run)
        yield provider
        group.cancel_scope.cancel()


async def until(condition: object) -> None:
    with anyio.fail_after(10):
        while not condition():  # type: ignore[operator]  # noqa: ASYNC110
            await anyio.sleep(0.005)


@pytest.fixture
async def fake() -> AsyncIterator[FakeEndpoint]:
    async with endpoint() as found:
        yield found


async def test_until_it_is_repointed_the_settings_hold(tmp_path: Path) -> None:
    provider = make(tmp_path, token=client_url("one"))
    assert (await provider.token()).value == "one"
    assert provider.status().source == "fixed"


async def test_a_repoint_holds_at_once_and_ends_a_wait(tmp_path: Path) -> None:
    told = Told()
    provider = make(tmp_path, told, token=client_url("one"))
    await provider.token()
    async with running(provider), anyio.create_task_group() as group:
        group.start_soon(provider.changed)
        answer = await provider.repoint({"token": client_url("two", OTHER)})
    assert answer == {"repointed": "hub", "url": OTHER, "kept": True}
    token = await provider.token()
    assert (token.value, token.url) == ("two", OTHER)
    assert provider.status().source == "repointed to hub"
    provider.used(token)
    assert told.events == ["switched", "accepted"]


async def test_what_is_refused_changes_nothing(tmp_path: Path) -> None:
    told = Told()
    provider = make(tmp_path, told, token=client_url("one"))
    evil = client_url("two", "wss://evil.example/client/hubs/runs")
    answer = await provider.repoint({"token": evil})
    assert answer["error"] == "denied"
    assert (await provider.token()).value == "one"
    assert told.events == []
    assert list(tmp_path.iterdir()) == []


async def test_a_repoint_survives_a_restart_with_the_same_settings(tmp_path: Path) -> None:
    await make(tmp_path, token=client_url("one")).repoint({"token": client_url("two")})
    assert (await make(tmp_path, token=client_url("one")).token()).value == "two"
    assert (await make(tmp_path, token=client_url("newer")).token()).value == "newer"


async def test_after_a_restart_the_list_of_hosts_counts_that_is_given_now(tmp_path: Path) -> None:
    await make(tmp_path, token=client_url("one")).repoint({"token": client_url("two")})
    elsewhere = make(tmp_path, token=client_url("one"), hosts="b.example")
    assert (await elsewhere.token()).value == "one"
    again = make(tmp_path, token=client_url("one"))
    assert (await again.token()).value == "two"
    assert "error" not in await again.repoint({"token": client_url("three")})


async def test_when_the_hub_refuses_what_a_repoint_brought_the_settings_hold_again(
    tmp_path: Path,
) -> None:
    told = Told()
    provider = make(tmp_path, told, token=client_url("one"))
    async with running(provider):
        await provider.repoint({"token": client_url("two")})
        provider.refused(await provider.token(), TokenExpired("HTTP 401: it expired"))
        token = await provider.token()
        assert token.value == "one"
        provider.used(token)
        assert told.events == ["switched", "refused", "accepted"]
        status = provider.status()
        assert status.source == "fixed"
        assert status.failure is not None and "repointed" in status.failure
        await until(lambda: list(tmp_path.iterdir()) == [])
    assert (await make(tmp_path, token=client_url("one")).token()).value == "one"


async def test_a_disk_that_does_not_write_is_no_reason_to_stay_away(tmp_path: Path) -> None:
    provider = make(tmp_path / "gone", token=client_url("one"))
    answer = await provider.repoint({"token": client_url("two")})
    assert answer["kept"] is False
    assert (await provider.token()).value == "two"


async def test_an_operator_brings_a_superseded_sidecar_back(
    fake: FakeEndpoint, tmp_path: Path
) -> None:
    told = Told()
    fake.says(SUPERSEDED)
    provider = make(tmp_path, told, endpoint=fake.url, run_token="rt-0")
    with pytest.raises(Superseded):
        await provider.token()
    fake.says(grant(1, generation=4))
    async with running(provider):
        assert "error" not in await provider.repoint({"token": "from-the-operator"})
        token = await provider.token()
        provider.used(token)
    assert token.value == "token-1"
    assert fake.bearers == ["rt-0", "from-the-operator"]
    assert told.events == ["superseded", "switched", 4, "accepted"]


async def test_a_run_token_that_is_refused_leads_back_to_the_one_that_was_good(
    fake: FakeEndpoint, tmp_path: Path
) -> None:
    fake.says(grant(1, expires_in=0.2), grant(2, expires_in=300.0))
    provider = make(tmp_path, endpoint=fake.url, run_token="rt-0")
    await provider.token()
    fake.says(UNAUTHORIZED)
    await provider.repoint({"token": "typo"})
    with pytest.raises(TokenRefused):
        await provider.token()
    await anyio.sleep(0.2)
    fake.says(grant(3))
    assert (await provider.token()).value == "token-3"
    assert fake.bearers == ["rt-0", "typo", "run-token-1"]


async def test_a_run_token_that_was_good_is_tried_again_however_long_it_is_refused(
    fake: FakeEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.platform.answers.REFUSED_PAUSE", 0.02)
    fake.says(grant(1, expires_in=0.05))
    provider = make(tmp_path, endpoint=fake.url, run_token="rt-0")
    await provider.repoint({"token": "from-the-operator"})
    provider.used(await provider.token())
    await anyio.sleep(0.05)
    fake.says(UNAUTHORIZED)
    for _ in range(3):
        with pytest.raises(TokenRefused):
            await provider.token()
        await anyio.sleep(0.03)
    fake.says(grant(2))
    assert (await provider.token()).value == "token-2"
    assert set(fake.bearers) == {"from-the-operator", "run-token-1"}


async def test_the_hub_that_the_endpoint_names_may_be_repointed_to(
    fake: FakeEndpoint, tmp_path: Path
) -> None:
    fake.says(grant(1, url=HUB))
    provider = make(tmp_path, endpoint=fake.url, run_token="rt-0")
    assert "error" in await provider.repoint({"token": client_url("two")})
    await provider.token()
    assert "error" not in await provider.repoint({"token": client_url("two")})


async def test_without_a_list_another_port_of_the_host_is_another_place(tmp_path: Path) -> None:
    provider = make(tmp_path, token=client_url("one"))
    other = client_url("two", "wss://hub.example:8443/client/hubs/runs")
    answer = await provider.repoint({"token": other})
    assert answer["error"] == "denied"
    assert "'hub.example:8443' is none of the hosts" in answer["message"]
    assert "(hub.example:443)" in answer["message"]


async def test_a_list_of_hosts_is_the_whole_list(fake: FakeEndpoint, tmp_path: Path) -> None:
    fake.says(grant(1, url=HUB))
    provider = make(tmp_path, endpoint=fake.url, run_token="rt-0", hosts="a.example, b.example")
    await provider.token()
    assert (await provider.repoint({"token": client_url("two")}))["error"] == "denied"
    allowed = client_url("two", "wss://B.example/client/hubs/runs")
    assert "error" not in await provider.repoint({"token": allowed})
