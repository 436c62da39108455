"""The provider against an endpoint over real sockets: when it asks, and what it makes of a no."""

from __future__ import annotations

import base64
import json
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from endpoint import (
    RUN_ENDED,
    SUPERSEDED,
    UNAUTHORIZED,
    Answer,
    FakeEndpoint,
    endpoint,
    grant,
)

from sidecar import timer
from sidecar.clock import SystemClock
from sidecar.errors import (
    NetworkFailure,
    RunEnded,
    RunTokenRefused,
    Superseded,
    TokenRefused,
    TooManyRequests,
)
from sidecar.platform import client as client_module
from sidecar.platform.client import PlatformClient
from sidecar.platform.provider import EndpointProvider
from sidecar.platform.runtoken import RunTokenStore
from sidecar.tokens import watched
from sidecar.tokens.hooks import TokenHooks


class JumpingClock(SystemClock):
    """A calendar that somebody sets, and a laptop that slept."""

    def __init__(self) -> None:
        self.jump = self.sleep = 0.0

    def now(self) -> float:
        return super().now() + self.sleep

    def wall(self) -> float:
        return super().wall() + self.jump


class Told:
    """What the program was told, in order."""

    def __init__(self) -> None:
        self.events: list[object] = []
        self.hooks = TokenHooks(
            generation=self.events.append,
            superseded=lambda: self.events.append("superseded"),
            ended=lambda: self.events.append("ended"),
            refused=lambda sentence: self.events.append("refused"),
            accepted=lambda: self.events.append("accepted"),
        )


def make(
    fake: FakeEndpoint,
    folder: Path,
    *,
    first: str = "run-token-0",
    first_file: Path | None = None,
    incarnation: str = "i-1",
    told: Told | None = None,
    clock: SystemClock | None = None,
) -> EndpointProvider:
    return EndpointProvider(
        PlatformClient(fake.url),
        RunTokenStore(folder, first=first, first_file=first_file),
        run="demo",
        incarnation=incarnation,
        clock=clock or SystemClock(),
        hooks=(told or Told()).hooks,
        random=lambda: 0.0,
    )


@asynccontextmanager
async def running(provider: EndpointProvider) -> AsyncIterator[EndpointProvider]:
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


# Asking ----------------------------------------------------------------------------------


async def test_it_asks_with_its_run_token_and_keeps_the_next(
    fake: FakeEndpoint, tmp_path: Path
) -> None:
    told = Told()
    fake.says(grant(1, generation=3))
    provider = make(fake, tmp_path, told=told)
    token = await provider.token()
    assert (token.value, token.url) == ("token-1", "ws://127.0.0.1:1/client/hubs/h")
    [asked] = fake.asked
    assert (asked.path, asked.bearer) == ("/platform/v1/token", "run-token-0")
    assert asked.body == {"run": "demo", "incarnation": "i-1", "reason": "start"}
    assert told.events == [3]
    assert '"run-token-1"' in (tmp_path / "run-token").read_text()
    status = provider.status()
    assert (status.source, status.state, status.generation) == ("endpoint", "ok", 3)
    assert status.expires_in is not None and 299.0 < status.expires_in <= 300.0


async def test_a_token_that_is_good_is_not_asked_for_again(
    fake: FakeEndpoint, tmp_path: Path
) -> None:
    fake.says(grant(1))
    provider = make(fake, tmp_path)
    assert [await provider.token() for _ in range(5)] == [await provider.token()] * 5
    assert len(fake.asked) == 1


async def test_one_request_is_in_flight_however_many_want_a_token(
    fake: FakeEndpoint, tmp_path: Path
) -> None:
    gate = anyio.Event()
    fake.says(Answer(holds=gate, body=grant(1).body), grant(2))
    provider = make(fake, tmp_path)
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(provider.token)
        await until(lambda: fake.asked)
        gate.set()
    assert (len(fake.asked), fake.most_at_once) == (1, 1)


async def test_it_renews_before_the_token_lapses_and_the_generation_is_told_once(
    fake: FakeEndpoint, tmp_path: Path
) -> None:
    told = Told()
    fake.says(grant(1, expires_in=0.4), grant(2, expires_in=0.4), grant(3))
    async with running(make(fake, tmp_path, told=told)) as provider:
        assert (await provider.token()).value == "token-1"
        with anyio.fail_after(5):
            await provider.changed()
        assert (await provider.token()).value == "token-2"
        await until(lambda: provider.status().refreshes == 2)
    assert fake.reasons == ["start", "refresh", "refresh"]
    assert fake.bearers == ["run-token-0", "run-token-1", "run-token-2"]
    assert told.events == [1]


async def test_tokens_that_lapse_at_once_are_not_asked_for_at_once(
    fake: FakeEndpoint, tmp_path: Path
) -> None:
    fake.says(grant(1, expires_in=1e-9))
    async with running(make(fake, tmp_path)) as provider:
        await provider.token()
        await anyio.sleep(0.75)
        assert len(fake.asked) <= 2


async def test_a_token_that_has_lapsed_is_not_said_to_be_well(
    fake: FakeEndpoint, tmp_path: Path
) -> None:
    clock = JumpingClock()
    fake.says(grant(1))
    provider = make(fake, tmp_path, clock=clock)
    await provider.token()
    assert provider.status().state == "ok"
    clock.sleep = 301.0
    assert provider.status().state == "waiting"


async def test_a_run_token_that_cannot_be_kept_is_told_with_what_to_do(
    fake: FakeEndpoint, tmp_path: Path
) -> None:
    fake.says(grant(1))
    provider = make(fake, tmp_path / "gone")
    await provider.token()
    status = provider.status()
    assert status.state == "ok"
    assert "after a restart we shall need a repoint" in str(status.failure)
    assert status.way_out == "make room on the disk, or repair it"


async def test_a_generation_that_falls_is_not_believed(fake: FakeEndpoint, tmp_path: Path) -> None:
    told = Told()
    fake.says(grant(1, expires_in=0.1, generation=5), grant(2, generation=4))
    async with running(make(fake, tmp_path, told=told)) as provider:
        await provider.token()
        await until(lambda: provider.status().refreshes == 1)
        assert provider.status().generation == 5
    assert told.events == [5]


async def test_a_token_for_another_run_is_not_taken(fake: FakeEndpoint, tmp_path: Path) -> None:
    claims = base64.urlsafe_b64encode(json.dumps({"webpubsub.group": ["in.other"]}).encode())
    fake.says(grant(1, token=f"e30.{claims.decode().rstrip('=')}.c2ln"))
    with pytest.raises(TokenRefused, match="joins 'in.other' and not 'in.demo'"):
        await make(fake, tmp_path).token()


@pytest.mark.parametrize(
    "life, early, late",
    [
        pytest.param(600.0, 479.0, 481.0, id="120 s before"),
        pytest.param(100.0, 49.0, 51.0, id="half"),
    ],
)
async def test_when_it_is_renewed_is_told_by_the_clock_that_goes_on_while_a_laptop_sleeps(
    fake: FakeEndpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    life: float,
    early: float,
    late: float,
) -> None:
    monkeypatch.setattr(timer, "LONGEST", 0.01)  # it looks at the clock that often
    clock = JumpingClock()
    fake.says(grant(1, expires_in=life), grant(2, expires_in=100_000.0))
    async with running(make(fake, tmp_path, clock=clock)) as provider:
        await provider.token()
        clock.sleep = early
        await anyio.sleep(0.1)
        assert len(fake.asked) == 1
        clock.sleep = late
        await until(lambda: provider.status().refreshes == 1)


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
async def test_a_calendar_that_jumps_an_hour_changes_nothing(
    fake: FakeEndpoint, tmp_path: Path, jump: float
) -> None:
    clock = JumpingClock()
    fake.says(grant(1, expires_in=300.0), grant(2))
    async with running(make(fake, tmp_path, clock=clock)) as provider:
        token = await provider.token()
        clock.jump = jump
        assert await provider.token() == token
        await anyio.sleep(0.05)
        left = provider.status().expires_in
    assert len(fake.asked) == 1
    assert left is not None and 299.0 < left < 300.0


# Refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer, kind, state",
    [
        (UNAUTHORIZED, RunTokenRefused, "refused"),
        (SUPERSEDED, Superseded, "superseded"),
        (RUN_ENDED, RunEnded, "run_ended"),
        (Answer(429, headers={"Retry-After": "7"}), TooManyRequests, "waiting"),
        (Answer(302, headers={"Location": "http://127.0.0.1:1/"}), NetworkFailure, "waiting"),
        (Answer(502), NetworkFailure, "waiting"),
        (Answer(200, b"<html>"), NetworkFailure, "waiting"),
        (Answer(200, grant(1).body, cut=True), NetworkFailure, "waiting"),
        (Answer(200, bytes(100_000)), NetworkFailure, "waiting"),
        (grant(1, url="ws://elsewhere.example/client/hubs/h"), TokenRefused, "refused"),
    ],
    ids=str,
)
async def test_each_no_is_told_apart_and_in_health(
    fake: FakeEndpoint, tmp_path: Path, answer: Answer, kind: type[Exception], state: str
) -> None:
    fake.says(answer)
    provider = make(fake, tmp_path)
    with pytest.raises(kind):
        await provider.token()
    status = provider.status()
    assert status.state == state
    assert status.failure and status.way_out
    assert len(fake.asked) == 1


@pytest.mark.parametrize("answer", [UNAUTHORIZED, Answer(429, headers={"Retry-After": "60"})])
async def test_who_is_put_off_does_not_ask_again_before(
    fake: FakeEndpoint, tmp_path: Path, answer: Answer
) -> None:
    fake.says(answer)
    provider = make(fake, tmp_path)
    for _ in range(3):
        with pytest.raises((TokenRefused, TooManyRequests)) as caught:
            await provider.token()
        assert 59.0 < caught.value.retry_after <= 60.0
    assert len(fake.asked) == 1


async def test_an_endpoint_that_is_away_is_tried_again_and_the_token_stays(
    fake: FakeEndpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fake.says(grant(1, expires_in=2.0), Answer(503), Answer(503), Answer(502), grant(2))
    async with running(make(fake, tmp_path)) as provider:
        await provider.token()
        await until(lambda: provider.status().failure)
        assert provider.status().state == "ok"
        await until(lambda: provider.status().refreshes == 1)
        assert provider.status().failure is None
    assert caplog.text.count("no new token") == 1  # however long it takes
    # The same run token again and again: it is replaced by an answer, and by nothing else.
    assert fake.bearers == ["run-token-0"] + ["run-token-1"] * 4


async def test_a_refusal_while_the_channel_is_up_is_told_once_and_mended_by_another_token(
    fake: FakeEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.platform.answers.REFUSED_PAUSE", 0.02)
    told, first = Told(), tmp_path / "first"
    first.write_text("run-token-0")
    fake.says(grant(1, expires_in=0.2), UNAUTHORIZED)
    provider = make(fake, tmp_path, first="", first_file=first, told=told)
    async with running(provider):
        await provider.token()
        await until(lambda: len(fake.asked) > 3)
        assert told.events == [1, "refused"]
        assert provider.status().state == "refused"
        fake.says(grant(2))
        first.write_text("another-run-token")
        await until(lambda: provider.status().state == "ok")
    assert told.events == [1, "refused", "accepted"]
    assert fake.asked[-1].bearer == "another-run-token"
    assert fake.asked[-1].body["reason"] == "start"


async def test_a_first_token_that_is_replaced_ends_the_pause_at_once(
    fake: FakeEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched, "POLL_INTERVAL", 0.01)
    first = tmp_path / "first"
    first.write_text("bad")
    fake.says(UNAUTHORIZED, grant(1))
    provider = make(fake, tmp_path, first="", first_file=first)
    with pytest.raises(TokenRefused):
        await provider.token()
    (tmp_path / "new").write_text("good")
    os.replace(tmp_path / "new", first)
    with anyio.fail_after(5):
        await provider.changed()
    assert (await provider.token()).value == "token-1"
    assert fake.bearers == ["bad", "good"]


async def test_what_the_hub_refuses_is_renewed_at_once_and_the_next_only_after_a_minute(
    fake: FakeEndpoint, tmp_path: Path
) -> None:
    fake.says(grant(1), grant(2), grant(3))
    async with running(make(fake, tmp_path)) as provider:
        token = await provider.token()
        provider.refused(token, TokenRefused("HTTP 401"))
        with anyio.fail_after(5):
            await provider.changed()
        token = await provider.token()
        assert token.value == "token-2"
        provider.refused(token, TokenRefused("HTTP 401"))
        with pytest.raises(TokenRefused, match="refuses what the endpoint gives") as caught:
            await provider.token()
    assert caught.value.retry_after > 50.0
    assert len(fake.asked) == 2
    assert provider.status().state == "refused"


async def test_a_refusal_of_an_older_token_costs_the_newer_one_nothing(
    fake: FakeEndpoint, tmp_path: Path
) -> None:
    fake.says(grant(1, expires_in=0.1), grant(2))
    async with running(make(fake, tmp_path)) as provider:
        old = await provider.token()
        await until(lambda: provider.status().refreshes == 1)
        provider.refused(old, TokenRefused("HTTP 401"))
        assert (await provider.token()).value == "token-2"
    assert len(fake.asked) == 2


# Superseded, ended, restarted ------------------------------------------------------------


async def test_who_was_superseded_does_not_ask_again_after_a_restart(
    fake: FakeEndpoint, tmp_path: Path
) -> None:
    told = Told()
    fake.says(grant(1, expires_in=0.1), SUPERSEDED)
    async with running(make(fake, tmp_path, told=told)) as provider:
        await provider.token()
        await until(lambda: provider.status().state == "superseded")
        with pytest.raises(Superseded):
            await anyio.sleep(0.1)  # the token that it had lapses
            await provider.token()
    assert told.events == [1, "superseded"]
    assert len(fake.asked) == 2

    again = Told()
    restarted = make(fake, tmp_path, incarnation="i-2", told=again)
    for _ in range(2):
        with pytest.raises(Superseded, match="before this one started"):
            await restarted.token()
    assert again.events == ["superseded"]
    assert len(fake.asked) == 2

    fake.says(grant(9))
    repointed = make(fake, tmp_path, first="from-the-operator", incarnation="i-2")
    assert (await repointed.token()).value == "token-9"


async def test_a_run_that_ended_is_told_and_not_asked_about_again(
    fake: FakeEndpoint, tmp_path: Path
) -> None:
    told = Told()
    fake.says(RUN_ENDED)
    provider = make(fake, tmp_path, told=told)
    for _ in range(2):
        with pytest.raises(RunEnded):
            await provider.token()
    assert told.events == ["ended"]
    assert len(fake.asked) == 1


async def test_a_restart_goes_on_with_the_run_token_that_was_kept(
    fake: FakeEndpoint, tmp_path: Path
) -> None:
    fake.says(grant(1), grant(2))
    await make(fake, tmp_path).token()
    await make(fake, tmp_path, incarnation="i-2").token()
    assert fake.bearers == ["run-token-0", "run-token-1"]
    assert fake.reasons == ["start", "start"]


async def test_a_dial_that_is_given_up_loses_no_answer_that_was_read(
    fake: FakeEndpoint, tmp_path: Path
) -> None:
    gate = anyio.Event()
    fake.says(Answer(holds=gate, body=grant(1).body), grant(2))
    provider = make(fake, tmp_path)
    with anyio.move_on_after(0.2):
        await provider.token()
    assert not (tmp_path / "run-token").exists()  # the answer was never read, so it is not owed
    gate.set()
    assert (await provider.token()).value == "token-2"
    assert fake.bearers == ["run-token-0", "run-token-0"]


# The request -----------------------------------------------------------------------------


async def test_an_endpoint_that_hangs_is_given_up(
    fake: FakeEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "REQUEST_TIME", 0.2)
    fake.says(Answer(holds=anyio.Event()))
    with pytest.raises(NetworkFailure):
        await make(fake, tmp_path).token()


async def test_an_endpoint_that_nobody_serves_is_the_network(tmp_path: Path) -> None:
    fake = FakeEndpoint()
    fake.url = "http://127.0.0.1:1"
    with pytest.raises(NetworkFailure, match="nobody listens at 127.0.0.1:1 "):
        await make(fake, tmp_path).token()


async def test_no_secret_reaches_a_log_or_a_sentence(
    fake: FakeEndpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fake.says(grant(1, expires_in=0.1), UNAUTHORIZED)
    with caplog.at_level(logging.DEBUG):
        async with running(make(fake, tmp_path, first="hush-0")) as provider:
            await provider.token()
            await until(lambda: provider.status().state == "refused")
            shown = f"{provider.status()}"
    assert "hush" not in caplog.text + shown
    assert "token-1" not in caplog.text + shown


async def test_a_proxy_of_the_environment_is_not_asked_for_loopback(
    fake: FakeEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    fake.says(grant(1))
    assert (await make(fake, tmp_path).token()).value == "token-1"
