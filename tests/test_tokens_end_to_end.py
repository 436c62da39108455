"""Work goes on while tokens lapse, hubs go away and runs end: `sidecar run` as a process, with the
embedded platform endpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from stack import PATIENCE, RUN, Stack, open_stack, until

from sidecar.client import CallableProvider, Controller, Run, Token
from sidecar.hub import Hub, HubSettings
from sidecar.protocol.names import controller_grant

pytestmark = pytest.mark.slow  # real processes, killed and started again

LIFE = 2.0  # seconds of a token; it is renewed at half of that
COUNTING = "for i in $(seq 1 100); do echo line $i; sleep 0.1; done"
COUNTED = b"".join(b"line %d\n" % i for i in range(1, 101))


def short_lived_hub() -> Hub:
    hub = Hub(HubSettings(platform=True, token_life=LIFE))
    hub.faults.enforce_expiry = True
    return hub


def state_of(stack: Stack, number: int = 0) -> dict[str, Any]:
    found = json.loads((stack.workspace.parent / f"state-{number}" / "state.json").read_text())
    assert isinstance(found, dict)
    return found


async def output_of(run: Run, script: str) -> bytes:
    """What it prints, through whatever happens; it has to end with status 0."""
    received = bytearray()
    async with run.process(script) as program:
        async for _, chunk in program.output():
            received += chunk
        assert (await program.wait()).status == 0
    return bytes(received)


@pytest.mark.slow
async def test_a_long_command_goes_on_through_many_renewals(tmp_path: Path) -> None:
    async with open_stack(tmp_path, sidecars=0, hub=short_lived_hub()) as stack:
        stack.start_sidecar_process(**stack.endpoint())
        run = await stack.attach()
        assert await output_of(run, COUNTING) == COUNTED
        info = await run.info()
        assert info["generation"] == 1
        assert info["token"]["refreshes"] >= 8
        # It ended the first connection; then the sidecar has seen that it does, and hands over.
        assert stack.hub.faults.struck["enforce_expiry"] >= 1


@pytest.mark.slow
async def test_the_tokens_of_both_sides_lapse_again_and_again(tmp_path: Path) -> None:
    async with open_stack(tmp_path, sidecars=0, hub=short_lived_hub()) as stack:
        stack.start_sidecar_process(**stack.endpoint())

        async def mint() -> Token:
            value = stack.hub.mint(controller_grant("short", [RUN]), LIFE)
            return Token(stack.hub.address.client_url, value, stack.hub.clock.wall() + LIFE)

        async with Controller.connect(CallableProvider(mint), controller="short") as controller:
            run = await controller.attach(RUN, timeout=PATIENCE)
            assert await output_of(run, COUNTING) == COUNTED
            assert controller.status().reconnects >= 3
        assert (await (await stack.attach()).info())["channel"]["reconnects"] >= 3


@pytest.mark.slow
async def test_a_token_that_lapses_while_the_hub_is_away_costs_a_wait(tmp_path: Path) -> None:
    async with open_stack(tmp_path, sidecars=0, hub=short_lived_hub()) as stack:
        stack.start_sidecar_process(**stack.endpoint())
        run = await stack.attach()
        received: list[bytes] = []

        async def count() -> None:
            received.append(await output_of(run, f"echo ran >> count; {COUNTING}"))

        async with anyio.create_task_group() as group:
            group.start_soon(count)
            await until((stack.workspace / "count").exists)
            await stack.hub.leave(2 * LIFE, forget=True)
        assert received == [COUNTED]
        assert (stack.workspace / "count").read_text() == "ran\n"
        assert (await run.info())["generation"] == 1


async def test_a_sidecar_that_is_killed_counts_as_another_start(tmp_path: Path) -> None:
    async with open_stack(tmp_path, sidecars=0, hub=Hub(HubSettings(platform=True))) as stack:
        options = {**stack.endpoint(), "state": str(tmp_path / "state-0")}
        first = stack.start_sidecar_process(**options)
        run = await stack.attach()
        assert (await run.info())["generation"] == 1
        first.kill()
        await anyio.to_thread.run_sync(first.wait)
        stack.start_sidecar_process(**options)
        assert (await run.info())["generation"] == 2
        await until(lambda: state_of(stack)["generation"] == 2)


async def test_the_end_of_a_run_ends_its_sidecar(tmp_path: Path) -> None:
    async with open_stack(tmp_path, sidecars=0, hub=short_lived_hub()) as stack:
        child = stack.start_sidecar_process(**stack.endpoint())
        run = await stack.attach()
        await run.ping()
        stack.hub.platform.end(RUN)
        with anyio.fail_after(20):
            assert await anyio.to_thread.run_sync(child.wait) == 0
        assert (state_of(stack)["state"], state_of(stack)["told_by"]) == ("ended", "platform")
