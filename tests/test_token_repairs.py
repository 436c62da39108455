"""Tokens that lapse or are damaged, and what brings their sidecar back: a file that changes, and
`sidecar repoint`. The sidecar is a process that works meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from rawpeer import RawPeer, raw_peer
from stack import PATIENCE, ROOT, RUN, Stack, open_stack, until

from sidecar.client import Run
from sidecar.hub import Hub, HubSettings
from sidecar.protocol import envelope as wire
from sidecar.protocol.names import sidecar_grant

pytestmark = pytest.mark.slow  # real processes, killed and started again

SIDECAR = f"sandbox:{RUN}"
SILENCE = 1.5  # seconds in which a sidecar that has a good token would have dialled


def sidecar_token(hub: Hub, lifetime: float = 300.0) -> str:
    url = hub.address.client_url
    return f"{url}?access_token={hub.mint(sidecar_grant(RUN), lifetime)}"


async def repoint(stack: Stack, *options: str, stdin: str) -> subprocess.CompletedProcess[bytes]:
    """`sidecar repoint OPTIONS -`, as an operator says it in the sandbox."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("SIDECAR_")}
    state = str(stack.workspace.parent / "state-0")

    def run() -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "sidecar", "repoint", *options, "-"],
            input=stdin.encode(),
            env={**environ, "PYTHONPATH": str(ROOT), "SIDECAR_RUN": RUN, "SIDECAR_STATE": state},
            capture_output=True,
            timeout=30,
        )

    return await anyio.to_thread.run_sync(run)


async def hears_nothing(peer: RawPeer) -> bool:
    """Whether the sidecar stays off the channel for a while."""
    try:
        await peer.expect(wire.Hello, timeout=SILENCE)
    except TimeoutError:
        return True
    return False


@pytest.mark.slow
async def test_a_file_that_changes_ends_the_back_off_and_one_that_is_damaged_changes_nothing(
    tmp_path: Path,
) -> None:
    async with open_stack(tmp_path, sidecars=0) as stack, raw_peer(stack.hub) as peer:
        hub, path = stack.hub, tmp_path / "token"
        path.write_text(sidecar_token(hub, lifetime=2))
        stack.start_sidecar_process(hub="", token="", token_file=str(path))
        await peer.expect(wire.Hello, timeout=PATIENCE)

        await anyio.sleep(3)  # its `exp` is a whole second
        await stack.lose(SIDECAR)  # a new connection is needed, and the token has lapsed
        assert await hears_nothing(peer)
        path.write_text("")
        assert await hears_nothing(peer)
        path.write_text(sidecar_token(hub)[:-30])
        assert await hears_nothing(peer)
        path.write_text(sidecar_token(hub))
        await peer.expect(wire.Hello, timeout=2)  # no back-off of 5 seconds, no repoint


@pytest.mark.slow
async def test_a_token_that_lapsed_in_an_outage_is_replaced_and_the_work_went_on(
    tmp_path: Path,
) -> None:
    async with open_stack(tmp_path, sidecars=0) as stack:
        hub = stack.hub
        url, _, token = sidecar_token(hub, lifetime=2).partition("?access_token=")
        stack.start_sidecar_process(hub=url, token=token)
        run = await stack.attach()
        received: list[bytes] = []
        async with anyio.create_task_group() as group:
            group.start_soon(count_to_twenty, run, received)
            await until((stack.workspace / "started").exists)
            await anyio.sleep(3)  # its `exp` is a whole second
            await stack.lose(SIDECAR)
            await until((stack.workspace / "ended").exists)
            assert received == []
            done = await repoint(stack, stdin=sidecar_token(hub))
            assert done.returncode == 0, done.stderr
        assert received == [b"".join(b"%d\n" % number for number in range(1, 21))]


@pytest.mark.slow
async def test_a_run_token_that_lapsed_in_an_outage_is_replaced_by_another(
    tmp_path: Path,
) -> None:
    hub = Hub(HubSettings(platform=True, token_life=1.0, run_token_life=2.0))
    async with open_stack(tmp_path, sidecars=0, hub=hub) as stack:
        stack.start_sidecar_process(**stack.endpoint())
        run = await stack.attach()
        received: list[bytes] = []
        async with anyio.create_task_group() as group:
            group.start_soon(count_to_twenty, run, received)
            await until((stack.workspace / "started").exists)
            await hub.leave(3, forget=True)
            await until((stack.workspace / "ended").exists)
            await until(lambda: not hub.is_away)
            assert received == []
            done = await repoint(stack, stdin=hub.mint_run_token(RUN))
            assert done.returncode == 0, done.stderr
        assert received == [b"".join(b"%d\n" % number for number in range(1, 21))]
        assert (await run.info())["generation"] == 1


@pytest.mark.slow
async def test_who_was_superseded_comes_back_by_a_repoint(tmp_path: Path) -> None:
    hub = Hub(HubSettings(platform=True, token_life=2.0))
    async with open_stack(tmp_path, sidecars=0, hub=hub) as stack, raw_peer(hub) as peer:
        stack.start_sidecar_process(**stack.endpoint())
        old = await peer.expect(wire.Hello, timeout=PATIENCE)
        stack.start_sidecar_process(**stack.endpoint())
        await peer.expect(wire.Hello, timeout=PATIENCE)
        state = tmp_path / "state-0" / "state.json"
        await until(lambda: '"superseded"' in state.read_text())
        done = await repoint(stack, stdin=hub.mint_run_token(RUN))
        assert done.returncode == 0, done.stderr
        again = await peer.expect(wire.Hello, timeout=PATIENCE, generation=3)
        assert again.incarnation == old.incarnation
        await until(lambda: '"superseded"' in (tmp_path / "state-1" / "state.json").read_text())
        assert hub.platform.get(RUN).generation == 3


async def test_a_repoint_to_a_foreign_host_is_denied_and_changes_nothing(tmp_path: Path) -> None:
    async with open_stack(tmp_path, sidecars=0) as stack:
        stack.start_sidecar_process()
        run = await stack.attach()
        secret = sidecar_token(stack.hub).partition("=")[2]
        foreign = f"wss://hub.example/client/hubs/sidecar?access_token={secret}"
        done = await repoint(stack, stdin=foreign)
        assert done.returncode != 0
        assert b"hub.example" in done.stderr
        assert secret.encode() not in done.stderr + done.stdout
        assert (await run.info())["channel"]["reconnects"] == 0


async def count_to_twenty(run: Run, received: list[bytes]) -> None:
    script = "touch started; for i in $(seq 1 20); do echo $i; sleep 0.2; done; touch ended"
    output = bytearray()
    async with run.process(script) as program:
        async for _, chunk in program.output():
            output += chunk
        assert (await program.wait()).status == 0
    received.append(bytes(output))
