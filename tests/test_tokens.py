from __future__ import annotations

import base64
import contextlib
import json
import os
from pathlib import Path

import anyio
import pytest

from sidecar.clock import ManualClock, SystemClock
from sidecar.errors import NetworkFailure, NoToken, SettingsError, TokenRefused
from sidecar.tokens import (
    CallableProvider,
    FixedToken,
    Token,
    TokenFile,
    ask,
    check_url,
    expiry,
    is_loopback,
    parse_client_url,
    parse_token,
    url_for_log,
    watched,
)
from sidecar.tokens import provider as provider_module
from sidecar.tokens.hooks import TokenHooks
from sidecar.tokens.source import PlainSource

HUB = "wss://hub.example/client/hubs/runs"


def jwt(**claims: object) -> str:
    """An unsigned stand-in; nobody here verifies it."""
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"e30.{payload}.c2ln"


JWT = jwt(exp=1_800_000_000, sub="sandbox:a")


# Forms of a token ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(JWT, id="bare"),
        pytest.param(f"\n {JWT}\n", id="bare, with white space around it"),
        pytest.param(f"{HUB}?access_token={JWT}\n", id="client URL"),
        pytest.param(json.dumps({"url": HUB, "token": JWT, "expires_in": 60}), id="JSON"),
        pytest.param(json.dumps({"token": JWT}), id="JSON without a URL"),
        pytest.param(json.dumps({"url": f"{HUB}?access_token={JWT}"}), id="client URL in JSON"),
    ],
)
def test_every_form_is_understood(text: str) -> None:
    assert parse_token(text, HUB) == Token(HUB, JWT, 1_800_000_000.0)


@pytest.mark.parametrize(
    "text, hub, complaint",
    [
        pytest.param("", HUB, "empty", id="empty"),
        pytest.param("  \n", HUB, "empty", id="only white space"),
        pytest.param('{"url": "wss://hub.ex', HUB, "still being written", id="half of a JSON"),
        pytest.param(JWT[:20], HUB, "not all of one", id="half of a JWT"),
        pytest.param("hunter2", HUB, "not a JWT", id="something else"),
        pytest.param(JWT, None, "SIDECAR_HUB", id="bare, and no hub is known"),
        pytest.param('{"token": "x"}', None, "no `url`", id="JSON, and no hub is known"),
        pytest.param('{"url": "wss://h/", "token": 5}', None, "not a string", id="a number"),
        pytest.param('{"token": "a b"}', HUB, "characters", id="a blank inside"),
        pytest.param('{"token": "a\\nX: y"}', HUB, "characters", id="a header smuggled in"),
        pytest.param(HUB, None, "0 access_token", id="client URL without a token"),
        pytest.param(f"{HUB}?access_token=a&access_token=b", None, "2 access_token", id="two"),
    ],
)
def test_what_is_no_token_is_told(text: str, hub: str | None, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        parse_token(text, hub)


def test_other_parameters_of_a_client_url_stay() -> None:
    token = parse_client_url(f"wss://hub.example/client/?hub=runs&access_token={JWT}")
    assert token.url == "wss://hub.example/client/?hub=runs"


@pytest.mark.parametrize(
    "url",
    [
        "wss://hub.example/client/hubs/runs",
        "ws://127.0.0.1:8080/client/hubs/runs",
        "ws://[::1]:8080/client/hubs/runs",
        "ws://localhost/client/hubs/runs",
    ],
)
def test_a_token_may_go_over_tls_or_to_this_machine(url: str) -> None:
    assert check_url(url) == url


@pytest.mark.parametrize(
    "url, complaint",
    [
        ("ws://hub.example/client/hubs/runs", "plain text"),
        ("ws://127.0.0.1.example/", "plain text"),
        ("https://hub.example/", "expected wss://"),
        ("hub.example", "expected wss://"),
        ("wss:///client/hubs/runs", "expected wss://"),
        ("wss://user:secret@hub.example/", "user name or password"),
        ("wss://hub.example:port/", "malformed"),
        ("wss://[hub/", "malformed"),
    ],
)
def test_a_token_goes_nowhere_else(url: str, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint) as caught:
        check_url(url)
    assert "secret" not in str(caught.value)


def test_plain_text_to_another_host_has_to_be_allowed() -> None:
    assert FixedToken("ws://hub:8080/client/hubs/runs", JWT, allow_plain=True)
    with pytest.raises(SettingsError):
        FixedToken("ws://hub:8080/client/hubs/runs", JWT)


@pytest.mark.parametrize(
    "host, expected",
    [("localhost", True), ("127.8.9.1", True), ("::1", True), ("10.0.0.1", False), ("hub", False)],
)
def test_loopback_is_recognized(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    "token, expected",
    [
        pytest.param(jwt(exp=12), 12.0, id="whole seconds"),
        pytest.param(jwt(exp=12.5), 12.5, id="RFC 7519 allows fractions"),
        pytest.param(jwt(sub="x"), None, id="none given"),
        pytest.param(jwt(exp="soon"), None, id="no number"),
        pytest.param(jwt(exp=True), None, id="no number either"),
        pytest.param("opaque", None, id="no JWT"),
        pytest.param("a.b.c", None, id="parts that are not base64 of JSON"),
        pytest.param("e30.W10.e30", None, id="claims that are a list"),
    ],
)
def test_the_expiry_is_read_without_verifying(token: str, expected: float | None) -> None:
    assert expiry(token) == expected


def test_a_token_does_not_show() -> None:
    assert JWT not in repr(Token(HUB, JWT, None))
    assert url_for_log(f"wss://u:p@hub.example:1/client?access_token={JWT}#x") == (
        "wss://hub.example:1/client"
    )


# The file --------------------------------------------------------------------------------


async def test_the_file_is_read_at_every_dial(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(JWT)
    provider = TokenFile(path, HUB)
    assert (await provider.token()).value == JWT
    path.write_text(jwt(exp=2))
    assert (await provider.token()).expires_at == 2.0


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(JWT[:15].encode(), id="half written"),
        pytest.param(b"\xff\xfe", id="not UTF-8"),
        pytest.param(b"x" * 100_000, id="too large"),
        pytest.param(None, id="gone"),
    ],
)
async def test_a_file_that_holds_no_token_changes_nothing(
    tmp_path: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "token"
    path.write_text(JWT)
    provider = TokenFile(path, HUB)
    await provider.token()
    path.unlink() if content is None else path.write_bytes(content)
    for _ in range(3):
        assert (await provider.token()).value == JWT
    [warning] = caplog.records
    assert "last good token stays in use" in warning.getMessage()
    assert JWT[:15] not in caplog.text


async def test_a_file_that_never_held_a_token_says_what_is_wrong(tmp_path: Path) -> None:
    provider = TokenFile(tmp_path / "token", HUB)
    with pytest.raises(NoToken, match="no such file; write it or mount it there"):
        await provider.token()
    (tmp_path / "token").write_text("")
    with pytest.raises(NoToken, match="is empty"):
        await provider.token()


async def test_a_change_of_the_file_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched, "POLL_INTERVAL", 0.01)
    path = tmp_path / "token"
    path.write_text(JWT)
    provider = TokenFile(path, HUB)
    await provider.token()
    with anyio.move_on_after(0.05) as unchanged:
        await provider.changed()
    assert unchanged.cancelled_caught

    (tmp_path / "new").write_text(jwt(exp=2))
    os.replace(tmp_path / "new", path)
    with anyio.fail_after(5):
        await provider.changed()


async def test_a_file_that_appears_is_a_change_and_one_that_goes_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched, "POLL_INTERVAL", 0.01)
    path = tmp_path / "token"
    provider = TokenFile(path, HUB)
    with pytest.raises(NoToken):
        await provider.token()
    with anyio.move_on_after(0.05) as missing:
        await provider.changed()
    assert missing.cancelled_caught
    path.write_text("{")
    with anyio.fail_after(5):
        await provider.changed()
    with pytest.raises(NoToken):
        await provider.token()
    with anyio.move_on_after(0.05) as bad_as_before:
        await provider.changed()
    assert bad_as_before.cancelled_caught


async def test_what_is_no_file_is_told_and_not_looked_at_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched, "POLL_INTERVAL", 0.01)
    (tmp_path / "token").mkdir()
    provider = TokenFile(tmp_path / "token", HUB)
    with pytest.raises(NoToken, match="it is a folder, as engines make"):
        await provider.token()
    with anyio.move_on_after(0.05) as still_a_folder:
        await provider.changed()
    assert still_a_folder.cancelled_caught


async def test_a_file_that_we_may_read_now_is_a_change(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(JWT)
    path.chmod(0o000)
    provider = TokenFile(path, HUB)
    with contextlib.suppress(NoToken):  # root may read everything
        await provider.token()
    path.chmod(0o600)
    with anyio.fail_after(5):
        await provider.changed()


@pytest.mark.parametrize(
    "token, complaint",
    [
        pytest.param(jwt(sub="a"), "no `exp`", id="without an end"),
        pytest.param(jwt(exp=1_000), "it expired", id="lapsed"),
        pytest.param(
            jwt(exp=4_000_000_000, nbf=3_999_999_999), "it begins only in", id="not yet good"
        ),
        pytest.param(
            jwt(exp=4_000_000_000, aud="https://hub.example/client/hubs/other"),
            "for another hub",
            id="for another hub",
        ),
    ],
)
async def test_a_token_that_looks_wrong_is_tried_and_told_until_the_hub_takes_it(
    tmp_path: Path, token: str, complaint: str
) -> None:
    path = tmp_path / "token"
    path.write_text(token)
    source = PlainSource("file", TokenFile(path, HUB), clock=SystemClock(), hooks=TokenHooks())
    found = await source.token()
    assert found.value == token
    assert complaint in str(source.status().failure)
    source.refused(found, TokenRefused("HTTP 401"))
    assert str(source.status().failure).startswith("HTTP 401; it ")
    source.used(found)
    assert source.status().failure is None

    path.write_text(jwt(exp=4_000_000_000, aud="https://hub.example:443/client/hubs/RUNS"))
    await source.token()
    assert source.status().failure is None


async def test_a_token_that_no_sidecar_of_the_run_can_use_is_not_tried(tmp_path: Path) -> None:
    mine = jwt(exp=4_000_000_000, **{"webpubsub.group": ["in.demo", "see.demo"]})
    controllers = jwt(exp=4_000_000_000, **{"webpubsub.group": "out.demo"})
    path = tmp_path / "token"
    path.write_text(controllers)
    provider = TokenFile(path, HUB, run="demo")
    with pytest.raises(NoToken, match="joins 'out.demo' and not 'in.demo'"):
        await provider.token()
    path.write_text(mine)
    assert (await provider.token()).value == mine
    path.write_text(controllers)
    assert (await provider.token()).value == mine
    assert "the last good token stays in use" in provider.complaint


async def test_a_calendar_that_jumps_moves_no_end_of_a_token(tmp_path: Path) -> None:
    clock = ManualClock(now=100.0, wall=1_000.0)
    path = tmp_path / "token"
    path.write_text(jwt(exp=1_300))
    provider = TokenFile(path, HUB, clock=clock)
    assert (await provider.token()).lapses_at == 400.0
    clock._wall += 3600.0
    assert (await provider.token()).lapses_at == 400.0


# Providers -------------------------------------------------------------------------------


async def test_a_fixed_token_never_changes() -> None:
    provider = FixedToken(HUB, JWT)
    assert await provider.token() == Token(HUB, JWT, 1_800_000_000.0)
    with anyio.move_on_after(0.01) as waited:
        await provider.changed()
    assert waited.cancelled_caught


async def test_a_callable_is_asked() -> None:
    async def answer() -> Token:
        return Token(HUB, "t")

    assert await ask(CallableProvider(answer)) == Token(HUB, "t")


@pytest.mark.parametrize(
    "error, kind, text",
    [
        (NetworkFailure("the platform is away"), NetworkFailure, "platform is away"),
        (SettingsError("use wss"), NoToken, "use wss"),
        (RuntimeError("hunter2"), NoToken, "RuntimeError"),
    ],
)
async def test_whatever_goes_wrong_in_a_provider_is_an_error_of_the_channel(
    error: Exception, kind: type[Exception], text: str
) -> None:
    async def fail() -> Token:
        raise error

    with pytest.raises(kind, match=text) as caught:
        await ask(CallableProvider(fail))
    assert "hunter2" not in str(caught.value)


async def test_a_provider_may_not_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider_module, "PROVIDER_TIME", 0.01)

    async def hang() -> Token:
        await anyio.sleep_forever()

    with pytest.raises(NoToken, match="took more than"):
        await ask(CallableProvider(hang))
