"""Tokens: what is accepted and what is not, at literal times."""

from __future__ import annotations

from typing import Any

import jwt
import pytest

from sidecar.hub.tokens import Access, TokenError, Tokens, client_audiences, rest_audiences
from sidecar.protocol.names import sidecar_grant

KEY = "k" * 32
NOW = 1_800_000_000.0
AUDIENCE = "http://127.0.0.1:8080/client/hubs/boxes"

tokens = Tokens(KEY)


def signed(key: str = KEY, **claims: Any) -> str:
    return jwt.encode({"aud": AUDIENCE, "exp": NOW + 60, **claims}, key, algorithm="HS256")


def read(token: str) -> Access:
    return tokens.read_access(token, client_audiences(["127.0.0.1:8080"], "boxes"), now=NOW)


def test_a_minted_token_says_what_was_granted() -> None:
    token = tokens.mint_access(sidecar_grant("a"), AUDIENCE, lifetime=60, now=NOW)
    assert read(token) == Access(
        "sandbox:a",
        ("in.a", "see.a"),
        ("webpubsub.sendToGroup.out.a", "webpubsub.sendToGroups.out.a.*"),
        NOW + 60,
    )


def test_a_minted_token_lives_at_least_as_long_as_was_said() -> None:
    token = tokens.mint_access(sidecar_grant("a"), AUDIENCE, lifetime=60, now=NOW + 0.5)
    assert read(token).expires_at == NOW + 61


def test_groups_and_roles_are_a_string_or_a_list() -> None:
    token = signed(**{"role": "r", "webpubsub.group": "g"})
    assert read(token) == Access(None, ("g",), ("r",), NOW + 60)


@pytest.mark.parametrize(
    "audience",
    [
        "HTTP://127.0.0.1:8080/Client/Hubs/BOXES",
        "https://127.0.0.1:8080/client/hubs/boxes",
        ["other", AUDIENCE],
    ],
)
def test_the_audience_is_compared_without_case_and_may_be_a_list(audience: object) -> None:
    assert read(signed(aud=audience)).user_id is None


def test_clocks_may_differ_by_five_minutes() -> None:
    assert read(signed(nbf=NOW + 299, iat=NOW + 299)).roles == ()


@pytest.mark.parametrize(
    "token, sentence",
    [
        pytest.param("", "not a token", id="empty"),
        pytest.param("a.b.c", "not a token", id="garbage"),
        pytest.param(signed(key="x" * 32), "not a token", id="other-key"),
        pytest.param(
            jwt.encode({"aud": AUDIENCE, "exp": NOW + 60}, "", algorithm="none"),
            "not a token",
            id="unsigned",
        ),
        pytest.param(signed(exp=NOW), "expired", id="expired"),
        pytest.param(signed(exp=None), "no expiry", id="no-expiry"),
        pytest.param(signed(exp="tomorrow"), "not a number", id="expiry-text"),
        pytest.param(signed(exp=float("nan")), "not a number of", id="expiry-nan"),
        pytest.param(signed(exp=10**400), "not a number of", id="expiry-beyond-floats"),
        pytest.param(signed(nbf=NOW + 301), "not valid yet", id="not-before"),
        pytest.param(signed(iat=NOW + 301), "not valid yet", id="issued-later"),
        pytest.param(signed(aud=AUDIENCE.replace("http", "ws", 1)), "audience", id="ws-audience"),
        pytest.param(signed(aud="http://other/client/hubs/boxes"), "audience", id="other-host"),
        pytest.param(signed(aud=None), "audience", id="no-audience"),
        pytest.param(signed(sub=7), "'sub'", id="user-number"),
    ],
)
def test_other_tokens_are_refused(token: str, sentence: str) -> None:
    with pytest.raises(TokenError, match=sentence) as caught:
        read(token)
    assert caught.value.status == 401


def test_a_broken_group_claim_is_a_bad_request() -> None:
    with pytest.raises(TokenError) as caught:
        read(signed(**{"webpubsub.group": ["g", 7]}))
    assert caught.value.status == 400


def test_a_reconnection_token_is_for_one_connection_and_a_week() -> None:
    token = tokens.mint_reconnection("c1", now=NOW)
    tokens.check_reconnection(token, "c1", now=NOW + 7 * 86400 - 1)
    for connection_id, now in [("c2", NOW), ("C1", NOW), ("c1", NOW + 7 * 86400)]:
        with pytest.raises(TokenError):
            tokens.check_reconnection(token, connection_id, now=now)


def test_an_access_token_recovers_nothing() -> None:
    with pytest.raises(TokenError):
        tokens.check_reconnection(signed(aud="c1"), "c1", now=NOW)


@pytest.mark.parametrize(
    "audience",
    [
        "http://h:1/api/hubs/b/groups/a%20b/:send?api-version=2024-12-01",
        "http://h:1/api/hubs/b/groups/a%20b/:send",
        "http://h:1/api/hubs/b/groups/a b/:send",
        "HTTPS://H:1/API/hubs/b/groups/a b/:send?api-version=2024-12-01",
    ],
)
def test_a_rest_token_names_the_url_with_or_without_query(audience: str) -> None:
    wanted = rest_audiences(["h:1"], "/api/hubs/b/groups/a%20b/:send", "api-version=2024-12-01")
    tokens.check_rest(signed(aud=audience), wanted, now=NOW)
    with pytest.raises(TokenError):
        tokens.check_rest(signed(aud=audience), rest_audiences(["h:1"], "/api/x", ""), now=NOW)
