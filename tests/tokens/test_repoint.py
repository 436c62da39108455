"""What an operator may ask for with a repoint, and each mistake as one clear error."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from sidecar.errors import CallError
from sidecar.tokens.repoint import Hosts, Repoint, parse_request, read_note, remove_note, write_note

HUB = "wss://hub.example/client/hubs/runs"
NOW = 1_800_000_000.0


def jwt(**claims: object) -> str:
    """An unsigned stand-in; nobody here verifies it."""
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"e30.{payload}.c2ln"


GOOD = jwt(exp=NOW + 300, aud="https://hub.example/client/hubs/runs")


def parse(request: dict[str, object], *, endpoint: str | None = None) -> Repoint:
    return parse_request(
        request,
        run="demo",
        hub_url=HUB,
        endpoint=endpoint,
        hosts=Hosts(["hub.example", "b.example:8443", "platform.example"]),
        allow_plain=False,
        wall=NOW,
    )


@pytest.mark.parametrize(
    "request_, expected",
    [
        pytest.param({"token": GOOD}, Repoint("hub", HUB, GOOD), id="for the hub that it has"),
        pytest.param({"token": f" {GOOD}\n"}, Repoint("hub", HUB, GOOD), id="white space around"),
        pytest.param(
            {"token": f"{HUB}?access_token={GOOD}"}, Repoint("hub", HUB, GOOD), id="a client URL"
        ),
        pytest.param(
            {"token": json.dumps({"url": HUB, "token": GOOD, "expires_in": 60})},
            Repoint("hub", HUB, GOOD),
            id="the endpoint's JSON",
        ),
        pytest.param(
            {"token": jwt(exp=NOW + 1), "hub": "wss://b.example:8443/client/hubs/runs"},
            Repoint("hub", "wss://b.example:8443/client/hubs/runs", jwt(exp=NOW + 1)),
            id="another hub, on the port that is allowed",
        ),
        pytest.param(
            {"token": "rt", "endpoint": "https://platform.example/v2/"},
            Repoint("endpoint", "https://platform.example/v2", "rt"),
            id="an endpoint",
        ),
        pytest.param(
            {"token": jwt(exp=NOW + 9, aud="https://behind.example/client/hubs/runs")},
            Repoint("hub", HUB, jwt(exp=NOW + 9, aud="https://behind.example/client/hubs/runs")),
            id="a hub behind a proxy that has a name of its own",
        ),
        pytest.param(
            {"token": jwt(exp=NOW + 9, **{"webpubsub.group": ["see.demo", "in.demo"]})},
            Repoint("hub", HUB, jwt(exp=NOW + 9, **{"webpubsub.group": ["see.demo", "in.demo"]})),
            id="a token that joins the groups of this run",
        ),
    ],
)
def test_what_may_be_asked_for(request_: dict[str, object], expected: Repoint) -> None:
    assert parse(request_) == expected


def test_with_an_endpoint_a_plain_token_is_a_run_token_for_it() -> None:
    asked = parse({"token": "rt"}, endpoint="https://platform.example")
    assert asked == Repoint("endpoint", "https://platform.example", "rt")
    url = f"{HUB}?access_token={GOOD}"
    assert parse({"token": url}, endpoint="https://platform.example").kind == "hub"


@pytest.mark.parametrize(
    "request_, code, complaint",
    [
        ({}, "invalid", "needs a token"),
        ({"token": "  \n"}, "invalid", "needs a token"),
        ({"token": 5}, "invalid", "is a text, got int"),
        ({"token": GOOD[:20]}, "invalid", "not all of one"),
        ({"token": '{"url": "wss://hub'}, "invalid", "still being written"),
        ({"token": jwt(sub="a")}, "invalid", "no `exp`"),
        ({"token": jwt(exp=NOW - 60)}, "invalid", "expired 60 s ago"),
        (
            {"token": jwt(exp=NOW + 60, aud="https://hub.example/client/hubs/other")},
            "invalid",
            "for another hub",
        ),
        (
            {"token": jwt(exp=NOW + 9, **{"webpubsub.group": ["in.other", "see.other"]})},
            "invalid",
            "joins 'in.other', 'see.other' and not 'in.demo'",
        ),
        (
            {"token": jwt(exp=NOW + 9, **{"webpubsub.group": ["out.demo", "out.demo.me"]})},
            "invalid",
            "not for the sidecar of run 'demo'",
        ),
        ({"token": "srt_run_token"}, "invalid", "if it is a run token, name its endpoint"),
        ({"token": GOOD, "hub": HUB, "endpoint": "https://platform.example"}, "invalid", "both"),
        ({"token": GOOD, "hub": "ws://hub.example/client/hubs/runs"}, "invalid", "plain text"),
        ({"token": "rt", "endpoint": "http://platform.example"}, "invalid", "plain text"),
        ({"token": GOOD, "hub": "wss://[hub/"}, "invalid", "malformed"),
        ({"token": jwt(exp=NOW + 9), "hub": "wss://evil.example/client/hubs/r"}, "denied", "none"),
        ({"token": jwt(exp=NOW + 9), "hub": "wss://b.example/client/hubs/r"}, "denied", "none"),
        (
            {"token": f"wss://evil.example/client/hubs/r?access_token={jwt(exp=NOW + 9)}"},
            "denied",
            "SIDECAR_HOSTS",
        ),
        (
            {"token": json.dumps({"url": "wss://evil.example/x", "token": jwt(exp=NOW + 9)})},
            "denied",
            "none of the hosts",
        ),
        ({"token": "rt", "endpoint": "https://evil.example"}, "denied", "none of the hosts"),
        (
            {"token": "rt", "endpoint": "https://hub.example.evil.example"},
            "denied",
            "none of the hosts",
        ),
        ({"token": "a b", "endpoint": "https://platform.example"}, "invalid", "characters"),
    ],
)
def test_each_mistake_is_one_clear_error_that_quotes_no_token(
    request_: dict[str, object], code: str, complaint: str
) -> None:
    with pytest.raises(CallError, match=complaint) as caught:
        parse(request_)
    assert caught.value.code == code
    assert "c2ln" not in str(caught.value)


def test_a_repoint_does_not_show_its_token() -> None:
    assert "hush" not in repr(Repoint("hub", HUB, "hush"))


# What survives a restart -----------------------------------------------------------------


def test_a_note_holds_for_the_settings_that_it_was_made_for(tmp_path: Path) -> None:
    asked = Repoint("hub", HUB, GOOD)
    write_note(tmp_path, asked, made_for="these")
    assert read_note(tmp_path, made_for="these") == asked
    assert read_note(tmp_path, made_for="others") is None
    assert (tmp_path / "repointed").stat().st_mode & 0o777 == 0o600
    remove_note(tmp_path)
    remove_note(tmp_path)
    assert read_note(tmp_path, made_for="these") is None


@pytest.mark.parametrize(
    "content", ["", "{", "[1]", "[" * 99999, '{"format": 1}', '{"format": 2, "made_for": "these"}']
)
def test_a_note_that_cannot_be_read_is_as_none_and_told(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "repointed").write_text(content)
    assert read_note(tmp_path, made_for="these") is None
    assert "repointed cannot be read, or is a newer sidecar's" in caplog.text
