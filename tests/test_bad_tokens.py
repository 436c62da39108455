"""Tokens that will never do: what `sidecar run` says of each, and that it stays to be repaired."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import anyio
import jwt
import pytest
from stack import RUN, Stack, open_stack

from sidecar.hub import Hub, HubSettings
from sidecar.localsocket import ask
from sidecar.protocol.names import sidecar_grant

PATIENCE = 20.0


def signed(hub: Hub, **claims: Any) -> str:
    """A token that would do, but for these claims; those that are None are left out."""
    good = {
        **sidecar_grant(RUN).claims(),
        "aud": f"{hub.address.url}/client/hubs/sidecar",
        "exp": int(time.time() + 300),
    }
    kept = {name: value for name, value in {**good, **claims}.items() if value is not None}
    return jwt.encode(kept, hub.access_key, algorithm="HS256")


async def refusal(stack: Stack, number: int) -> dict[str, Any]:
    """What its health says of its token, once that has been refused."""
    socket = stack.workspace.parent / f"state-{number}" / "admin.sock"
    with anyio.fail_after(PATIENCE):
        while True:
            try:
                found = (await ask(socket, {"op": "health"}))["token"]
                if found["state"] == "refused":
                    return dict(found)
            except OSError:
                pass  # it is not there yet
            await anyio.sleep(0.1)


@pytest.mark.slow
async def test_each_is_told_in_one_sentence_with_the_way_out(tmp_path: Path) -> None:
    async with open_stack(tmp_path, sidecars=0) as stack:
        hub = stack.hub
        sentences = {
            signed(hub, exp=None): "it has no `exp`",
            signed(hub, exp=int(time.time()) - 90): "the token expired 9",
            signed(hub, aud="https://other.example/client/hubs/x"): "it is for another hub",
            signed(hub)[:-4] + "AAAA": "does not accept this token",
        }
        children = [stack.start_sidecar_process(token=token) for token in sentences]
        for number, (token, sentence) in enumerate(sentences.items()):
            found = await refusal(stack, number)
            assert sentence in found["failure"]
            assert found["way_out"] == "give a token to `sidecar repoint`"
            assert token.rpartition(".")[2] not in str(found)
        assert [child.poll() for child in children] == [None] * 4


@pytest.mark.slow
async def test_a_run_token_that_will_not_do_is_told_and_waits_for_another(tmp_path: Path) -> None:
    hub = Hub(HubSettings(platform=True))
    async with open_stack(tmp_path, sidecars=0, hub=hub) as stack:
        options = stack.endpoint()
        first = Path(options["run_token_file"])
        good = first.read_text()
        first.write_text(good[:-1] + ("x" if good[-1] != "x" else "y"))
        child = stack.start_sidecar_process(**options)
        found = await refusal(stack, 0)
        assert found["failure"] == "HTTP 401: the endpoint does not accept our run token"
        assert "sidecar repoint --endpoint" in found["way_out"]
        assert child.poll() is None

        first.write_text(good)
        run = await stack.attach()
        assert (await run.info())["generation"] == 1
