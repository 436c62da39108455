"""A controller: attaching, losing the hub, and what each waiting one is told."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from stack import RUN, open_stack, until

from sidecar.client import CallableProvider, CallError, Code, Controller, Token
from sidecar.protocol.names import controller_grant


@pytest.mark.parametrize("json", [False, True], ids=["protobuf", "json"])
async def test_both_subprotocols_serve(json: bool, tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack:
        run = await stack.attach("me", json=json)
        content = bytes(range(256)) * 2000
        await run.files.write("file", content)
        assert await run.files.read("file") == content


async def test_no_sidecar_is_a_timeout_that_says_how_the_channel_is(tmp_path: Path) -> None:
    async with open_stack(tmp_path, sidecars=0) as stack:
        controller = await stack.controller()
        with pytest.raises(CallError, match="no sidecar of run 'demo' answered") as caught:
            await controller.attach(RUN, timeout=0.2)
        assert caught.value.code is Code.TIMEOUT
        assert "the channel is open" in caught.value.message


async def test_a_controller_that_came_first_finds_its_sidecar(tmp_path: Path) -> None:
    async with open_stack(tmp_path, sidecars=0) as stack:
        controller = await stack.controller()
        async with anyio.create_task_group() as group:
            group.start_soon(controller.attach, RUN)
            await anyio.sleep(0.1)
            await stack.start_sidecar()


async def test_a_provider_is_asked_at_every_dial(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack:
        asked: list[None] = []

        async def provide() -> Token:
            asked.append(None)
            token = stack.hub.mint(controller_grant("me", [RUN]))
            return Token(stack.hub.address.client_url, token)

        async with Controller.connect(CallableProvider(provide), controller="me") as controller:
            run = await controller.attach(RUN)
            assert len(asked) == 1
            stack.hub.forget("control:me")
            await stack.hub.drop("control:me")
            assert await run.ping() < 5
            assert len(asked) == 2


async def test_two_runs_over_one_connection(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack:
        await stack.start_sidecar(run="other")
        token = stack.hub.mint(controller_grant("me", [RUN, "other"]))
        url = f"{stack.hub.address.client_url}?access_token={token}"
        async with Controller.connect(url, controller="me") as controller:
            runs = [await controller.attach(name) for name in (RUN, "other")]
            assert [(await run.info())["run"] for run in runs] == [RUN, "other"]
            await lose(stack, f"sandbox:{RUN}")
            assert [(await run.info())["run"] for run in runs] == [RUN, "other"]


async def lose(stack, who: str) -> None:  # type: ignore[no-untyped-def]
    stack.hub.forget(who)
    await stack.hub.drop(who)


async def test_the_newest_of_two_sidecars_is_spoken_to_and_the_split_reported(
    tmp_path: Path,
) -> None:
    async with open_stack(tmp_path, sidecars=0) as stack:
        old = await stack.start_sidecar(generation=1)
        run = await stack.attach()
        assert (run.incarnation, run.split_brain) == (old.incarnation, False)
        new = await stack.start_sidecar(generation=2)
        await until(lambda: run.incarnation == new.incarnation)
        for _ in range(5):
            assert (await run.info())["generation"] == 2
        await lose(stack, f"sandbox:{RUN}")
        await until(lambda: run.split_brain)
        assert (await run.info())["generation"] == 2


async def test_detaching_tells_whoever_waits_and_leaves_programs_running(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack:
        run = await stack.attach()
        codes: list[Code] = []

        async def wait_for_it() -> None:
            try:
                await run.exec("touch began; until [ -e go ]; do sleep 0.01; done; touch ended")
            except CallError as error:
                codes.append(error.code)

        async with anyio.create_task_group() as group:
            group.start_soon(wait_for_it)
            await until((stack.workspace / "began").exists)
            await run.detach()
        assert codes == [Code.CANCELLED]
        with pytest.raises(CallError, match="has detached"):
            await run.ping()
        await until(lambda: stack.sidecar.exchange.attached == 0)
        (stack.workspace / "go").touch()
        await until((stack.workspace / "ended").exists)


async def test_nothing_is_left_of_a_controller_after_its_block(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack:
        for _ in range(3):
            async with Controller.connect(stack.url("me"), controller="me") as controller:
                run = await controller.attach(RUN)
                assert await run.ping() < 5
        await until(lambda: stack.hub.stats().sessions == 1)
        await until(lambda: stack.sidecar.exchange.attached == 0)
