"""What the endpoint's answers mean, each told apart."""

from __future__ import annotations

import json

import pytest

from sidecar.errors import (
    ChannelError,
    NetworkFailure,
    RunEnded,
    RunTokenRefused,
    SettingsError,
    Superseded,
    TooManyRequests,
)
from sidecar.platform.answers import check_endpoint, check_run_token, parse_grant, refusal

GOOD = {
    "url": "wss://hub.example/client/hubs/h",
    "token": "t",
    "run_token": "r",
    "expires_in": 300,
    "generation": 2,
}


def body(**changes: object) -> bytes:
    found = {**GOOD, **changes}
    return json.dumps({key: value for key, value in found.items() if value is not None}).encode()


def test_a_good_answer_is_read_and_shows_no_secret() -> None:
    grant = parse_grant(body(token="hush", run_token="hush-hush", more="ignored"))
    assert (grant.token, grant.run_token) == ("hush", "hush-hush")
    assert (grant.expires_in, grant.generation) == (300.0, 2)
    assert "hush" not in repr(grant)


@pytest.mark.parametrize(
    "data, complaint",
    [
        pytest.param(b"<html>Log in to Hotel WiFi</html>", "`url`", id="a captive portal"),
        pytest.param(b"[1]", "`url`", id="a list"),
        pytest.param(body()[:-5], "`url`", id="half an answer"),
        pytest.param(body(url=None), "`url`", id="no url"),
        pytest.param(body(token=5), "`token`", id="a token that is a number"),
        pytest.param(body(run_token=""), "`run_token`", id="an empty run token"),
        pytest.param(body(run_token="a\nX: y"), "characters", id="a header smuggled in"),
        pytest.param(body(expires_in="soon"), "`expires_in`", id="no number"),
        pytest.param(body(expires_in=0), "`expires_in`", id="no time at all"),
        pytest.param(body(expires_in=-5), "`expires_in`", id="lapsed before it came"),
        pytest.param(body(expires_in=10**9), "`expires_in`", id="thirty years"),
        pytest.param(body(expires_in=True), "`expires_in`", id="true is no number"),
        pytest.param(body(generation=None), "`generation`", id="no generation"),
    ],
)
def test_what_no_endpoint_says_is_a_matter_of_the_network(data: bytes, complaint: str) -> None:
    with pytest.raises(NetworkFailure, match=complaint):
        parse_grant(data)


@pytest.mark.parametrize(
    "status, word, kind",
    [
        (401, "unauthorized", RunTokenRefused),
        (403, "run_ended", RunEnded),
        (403, "forbidden", RunTokenRefused),
        (409, "superseded", Superseded),
        (409, "conflict", NetworkFailure),
        (429, "too_many", TooManyRequests),
        (302, "", NetworkFailure),
        (404, "", NetworkFailure),
        (407, "", NetworkFailure),
        (500, "superseded", NetworkFailure),
        (503, "", NetworkFailure),
    ],
)
def test_refusals_are_told_apart(status: int, word: str, kind: type[ChannelError]) -> None:
    error = refusal(status, json.dumps({"error": word}).encode(), retry_after=None)
    assert type(error) is kind
    assert str(status) in str(error)


@pytest.mark.parametrize(
    "header, pause",
    [("7", 7.0), ("0", 1.0), ("86400", 3600.0), ("soon", 60.0), (None, 60.0), ("nan", 60.0)],
)
def test_the_endpoint_says_when_it_wants_to_be_asked_again(
    header: str | None, pause: float
) -> None:
    assert refusal(429, b"", retry_after=header).retry_after == pause


@pytest.mark.parametrize(
    "url",
    ["https://platform.example", "https://platform.example:8443/v2/", "http://127.0.0.1:80/p"],
)
def test_a_run_token_may_go_over_tls_or_to_this_machine(url: str) -> None:
    assert check_endpoint(url) == url.rstrip("/")


@pytest.mark.parametrize(
    "url, complaint",
    [
        ("http://platform.example", "plain text"),
        ("wss://platform.example", "no endpoint"),
        ("platform.example", "no endpoint"),
        ("https://", "no endpoint"),
        ("https://u:secret@platform.example", "more than host and path"),
        ("https://platform.example/?token=secret", "more than host and path"),
        ("https://platform.example:port", "malformed"),
    ],
)
def test_a_run_token_goes_nowhere_else(url: str, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint) as caught:
        check_endpoint(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "  \n", "a b", "a\x00", "ü", "x" * 20_000])
def test_what_can_be_no_run_token_is_refused_unquoted(text: str) -> None:
    with pytest.raises(SettingsError):
        check_run_token(text)
