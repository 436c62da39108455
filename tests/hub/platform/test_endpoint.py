"""The endpoint over HTTP: what it answers to whom."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from sidecar.clock import ManualClock
from sidecar.errors import SettingsError
from sidecar.hub import Hub, HubSettings
from sidecar.protocol.names import sidecar_grant


async def test_a_run_token_gets_a_hub_token_and_the_next_run_token(
    hub: Hub, call: Any, key: str, dial: Any
) -> None:
    minted = (await call("POST", "runs/demo", key)).json()
    assert (minted["run"], minted["endpoint"]) == ("demo", f"{hub.address.url}/platform")
    answer = await call.renew(minted["run_token"], reason="start")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    content = answer.json()
    assert (content["url"], content["expires_in"]) == (hub.address.client_url, 300.0)
    assert content["generation"] == 1
    claims = jwt.decode(content["token"], options={"verify_signature": False})
    assert claims | sidecar_grant("demo").claims() == claims
    assert claims["exp"] == int(hub.clock.wall() + 300)
    peer = await dial(hub, query=f"access_token={content['token']}")
    assert peer.connected.user_id == "sandbox:demo"

    again = (await call.renew(content["run_token"])).json()
    assert again["generation"] == 1
    assert (await call.renew(minted["run_token"])).status_code == 401


async def test_a_later_incarnation_supersedes_an_earlier_one_and_is_not_superseded_back(
    hub: Hub, call: Any, key: str
) -> None:
    old = (await call.renew(hub.mint_run_token("demo"), "aaaa")).json()
    new = (await call.renew(hub.mint_run_token("demo"), "bbbb")).json()
    assert (old["generation"], new["generation"]) == (1, 2)
    for _ in range(2):
        refused = await call.renew(old["run_token"], "aaaa")
        assert (refused.status_code, refused.json()) == (409, {"error": "superseded"})
        new = (await call.renew(new["run_token"], "bbbb")).json()
        assert new["generation"] == 2
    assert (await call("GET", "runs/demo", key)).json() == {
        "run": "demo",
        "generation": 2,
        "incarnation": "bbbb",
        "ended": False,
    }


async def test_only_who_bears_a_good_token_is_told_that_the_run_has_ended(
    hub: Hub, call: Any, key: str
) -> None:
    first = hub.mint_run_token("demo")
    second = (await call.renew(first)).json()["run_token"]
    (await call.renew(second)).raise_for_status()
    assert (await call("POST", "runs/demo/end", key)).status_code == 204
    ended = await call.renew(second)
    assert (ended.status_code, ended.json()) == (403, {"error": "run_ended"})
    assert (await call("POST", "runs/demo", key)).status_code == 403
    refused = await call.renew(first)  # retired
    assert (refused.status_code, refused.json()) == (401, {"error": "unauthorized"})


def wrong(text: str) -> str:
    return text[:-1] + ("x" if text[-1] != "x" else "y")


async def test_every_refusal_is_the_same(hub: Hub, call: Any, key: str, clock: Any) -> None:
    token, other = hub.mint_run_token("demo"), hub.mint_run_token("other")
    retired_key = hub.platform.add_key()
    await call("DELETE", f"keys/{retired_key.split('_')[1]}", key)
    refusals = [
        await call.renew(wrong(token)),
        await call.renew(other),
        await call.renew(key),
        await call.renew(token, run="no-such-run"),
        await call.renew(token, run="*"),
        await call.renew("é"),
        await call("POST", "token"),
        await call("POST", "token", token, content=b"{"),
        await call("POST", "token", token, json={"run": ["demo"]}),
        await call("POST", "runs/demo"),
        await call("POST", "runs/demo", wrong(key)),
        await call("POST", "runs/DEMO", retired_key),
        await call("POST", "runs/demo/end", token),
        await call("GET", "runs/no-such-run", wrong(key)),
        await call("GET", "no/such/path"),
    ]
    clock.advance(3600)
    refusals.append(await call.renew(token))
    assert {answer.status_code for answer in refusals} == {401}
    assert {answer.content for answer in refusals} == {b'{"error":"unauthorized"}'}
    assert len({tuple(answer.headers.items()) for answer in refusals}) == 1


async def test_the_seventh_wrong_attempt_in_a_minute_is_put_off(
    hub: Hub, call: Any, clock: ManualClock
) -> None:
    token = hub.mint_run_token("demo")
    statuses = [(await call.renew(wrong(token))).status_code for _ in range(7)]
    assert statuses == [401] * 6 + [429]
    clock.advance(17.5)
    put_off = await call.renew(token)
    assert (put_off.status_code, put_off.headers["retry-after"]) == (429, "43")
    assert put_off.json() == {"error": "too_many_attempts"}
    clock.advance(42.5)
    assert (await call.renew(token)).status_code == 200


async def test_a_calendar_that_jumps_costs_no_run_token(
    hub: Hub, call: Any, clock: ManualClock
) -> None:
    token = hub.mint_run_token("demo")
    clock._wall += 7200
    answer = await call.renew(token)
    assert answer.status_code == 200
    claims = jwt.decode(answer.json()["token"], options={"verify_signature": False})
    assert claims["exp"] == int(clock.wall() + 300)


async def test_a_stranger_keeps_nobody_out(hub: Hub, call: Any) -> None:
    token = hub.mint_run_token("demo")
    statuses = [(await call.renew("guess")).status_code for _ in range(7)]
    assert statuses == [401] * 6 + [429]
    assert (await call.renew(token)).status_code == 200


async def test_a_controller_gets_a_token_for_runs_that_there_are(
    hub: Hub, call: Any, key: str, dial: Any
) -> None:
    hub.mint_run_token("demo")
    body = {"runs": ["demo"], "watch": True, "lifetime": 1e9}
    answer = (await call("POST", "controllers/me", key, json=body)).json()
    assert (answer["url"], answer["expires_in"]) == (hub.address.client_url, 86400.0)
    claims = jwt.decode(answer["token"], options={"verify_signature": False})
    assert (claims["sub"], claims["role"]) == ("control:me", ["webpubsub.sendToGroup.see.demo"])
    unknown = await call("POST", "controllers/me", key, json={"runs": ["demo", "other"]})
    assert (unknown.status_code, unknown.json()) == (404, {"error": "unknown_run"})


@pytest.mark.parametrize(
    "method, path, body",
    [
        ("POST", "runs/DEMO", {}),
        ("POST", "runs/demo", []),
        ("POST", "controllers/me", {}),
        ("POST", "controllers/me", {"runs": []}),
        ("POST", "controllers/me.*", {"runs": ["demo"]}),
        ("POST", "controllers/me", {"runs": ["*"]}),
        ("POST", "controllers/me", {"runs": ["demo"], "lifetime": 0}),
        ("POST", "controllers/me", {"runs": ["demo"], "lifetime": True}),
        ("GET", "token", {}),
        ("POST", "nothing", {}),
    ],
)
async def test_who_is_let_in_is_told_what_is_wrong(
    hub: Hub, call: Any, key: str, method: str, path: str, body: Any
) -> None:
    hub.mint_run_token("demo")
    answer = await call(method, path, key, json=body)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid")
    assert answer.json()["message"]


@pytest.mark.parametrize(
    "body",
    [
        {"run": "demo", "incarnation": "a"},
        {"run": "demo", "incarnation": "a", "reason": "why"},
        {"run": "demo", "incarnation": "", "reason": "start"},
        {"run": "demo", "incarnation": "a" * 65, "reason": "start"},
        {"run": "demo", "reason": "start"},
    ],
)
async def test_a_request_that_makes_no_sense_uses_up_no_run_token(
    hub: Hub, call: Any, body: dict[str, str]
) -> None:
    first = hub.mint_run_token("demo")
    second = (await call.renew(first)).json()["run_token"]
    assert (await call("POST", "token", second, json=body)).status_code == 400
    assert (await call.renew(first)).status_code == 200


async def test_the_last_key_cannot_retire_itself(hub: Hub, call: Any, key: str) -> None:
    other = (await call("POST", "keys", key)).json()
    assert (await call("DELETE", f"keys/{key.split('_')[1]}", key)).status_code == 409
    assert (await call("DELETE", f"keys/{key.split('_')[1]}", other["key"])).status_code == 204
    assert (await call("GET", "runs/demo", key)).status_code == 401
    assert (await call("GET", "runs/demo", other["key"])).status_code == 404


async def test_a_hub_that_is_started_again_goes_on_with_its_file(
    serving: Any, tmp_path: Path
) -> None:
    options = {
        "platform": True,
        "platform_state": tmp_path / "state",
        "access_key": "k" * 40,
        "token_life": 5.0,
    }
    async with httpx.AsyncClient(trust_env=False) as client:
        first, address = await serving(**options)
        body = {"run": "demo", "incarnation": "a", "reason": "start"}
        bearer = {"Authorization": f"Bearer {first.mint_run_token('demo')}"}
        url = f"{address.endpoint}/v1/token"
        answer = (await client.post(url, json=body, headers=bearer)).json()
        assert answer["expires_in"] == 5.0

        second, address = await serving(**options)
        bearer = {"Authorization": f"Bearer {answer['run_token']}"}
        url = f"{address.endpoint}/v1/token"
        assert (await client.post(url, json=body, headers=bearer)).json()["generation"] == 1
    assert second.platform.get("demo").generation == 1


async def test_an_answer_that_could_not_be_saved_is_not_given(
    serving: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    hub, address = await serving(platform=True, platform_state=folder / "state")
    token = hub.mint_run_token("demo")
    folder.rmdir()
    body = {"run": "demo", "incarnation": "a", "reason": "start"}
    async with httpx.AsyncClient(
        trust_env=False, headers={"Authorization": f"Bearer {token}"}
    ) as client:
        url = f"{address.endpoint}/v1/token"
        refused = await client.post(url, json=body)
        assert (refused.status_code, refused.json()) == (503, {"error": "unavailable"})
        assert "cannot be saved" in caplog.text
        folder.mkdir()
        assert (await client.post(url, json=body)).json()["generation"] == 1


async def test_no_secret_is_logged(
    hub: Hub, call: Any, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token = hub.mint_run_token("demo")
    content = (await call.renew(token)).json()
    await call.renew(wrong(token))
    await call("POST", "runs/demo", key)
    secrets = [token, wrong(token), key, content["run_token"], content["token"]]
    ours = [record for record in caplog.records if not record.name.startswith("http")]
    text = " ".join(f"{record.getMessage()}" for record in ours) + repr(hub.__dict__)
    assert [secret[-24:] in text for secret in secrets] == [False] * 5


async def test_a_hub_serves_the_endpoint_only_if_it_is_told_to(serving: Any) -> None:
    hub, address = await serving()
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(f"{address.endpoint}/v1/token", content=json.dumps({}))
    assert answer.status_code == 404
    with pytest.raises(SettingsError):
        hub.mint_run_token("demo")


def test_a_run_token_has_to_outlive_the_token_that_it_comes_with() -> None:
    with pytest.raises(SettingsError):
        HubSettings(token_life=301.0, run_token_life=300.0)
