"""Through handovers of both sides, under work: nothing is lost and nothing comes twice."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from stack import RUN, Stack, open_stack, until

from sidecar.client import CallableProvider, Controller, Cursor, Event, Run, Token
from sidecar.hub import Hub, HubSettings
from sidecar.protocol.names import controller_grant, sidecar_grant
from sidecar.tokens import TokenFile, make_token

pytestmark = pytest.mark.slow  # real processes, killed and started again

HANDOVERS = 10
LINES = 5_000
COUNT = f"for i in $(seq 1 {LINES}); do echo line $i; [ $((i % 50)) = 0 ] && sleep 0.02; done"
COUNTED = b"".join(b"line %d\n" % i for i in range(1, LINES + 1))


async def output_of(run: Run, script: str, into: bytearray) -> None:
    async with run.process(script) as program:
        async for _, chunk in program.output():
            into += chunk
        assert (await program.wait()).status == 0


async def test_a_program_that_counts_through_ten_handovers_is_heard_to_the_end(
    tmp_path: Path,
) -> None:
    async with open_stack(tmp_path) as stack:
        run = await stack.attach()
        received = bytearray()
        channel = stack.sidecar.channel
        async with anyio.create_task_group() as group:
            group.start_soon(output_of, run, COUNT, received)
            for number in range(1, HANDOVERS + 1):
                heard = len(received)
                await until(lambda heard=heard: len(received) > heard)
                channel.hand_over()
                await until(lambda number=number: channel.status().handovers == number)
        status = channel.status()
    assert bytes(received) == COUNTED
    assert (status.handovers, status.recoveries, status.reason) == (HANDOVERS, 0, None)


async def test_events_are_read_once_each_and_calls_run_once_each_through_handovers(
    tmp_path: Path,
) -> None:
    async with open_stack(tmp_path) as stack:
        run = await stack.attach()
        channel = stack.sidecar.channel
        for number in range(1, HANDOVERS + 1):
            channel.hand_over()
            for _ in range(3):
                await run.exec(f"echo {number} >> ran")
            await until(lambda number=number: channel.status().handovers == number)
        numbers = [f"{number}\n" * 3 for number in range(1, HANDOVERS + 1)]
        assert (stack.workspace / "ran").read_text() == "".join(numbers)
        last = stack.sidecar.journal.last
        seen = []
        stream = run.events(after=Cursor())
        channel.hand_over()
        async for event in stream:
            assert isinstance(event, Event)
            seen.append(event.seq)
            if event.seq == last:
                break
        assert seen == list(range(1, last + 1))


# The controller ------------------------------------------------------------------------------


class Minter:
    """Asks a platform, as a program does that knows how to get a token itself."""

    def __init__(self, stack: Stack, lifetime: float) -> None:
        self._stack = stack
        self.lifetime = lifetime
        self.asked = 0

    async def token(self) -> Token:
        self.asked += 1
        grant = controller_grant("me", [RUN])
        value = self._stack.hub.mint(grant, self.lifetime)
        return make_token(self._stack.hub.address.client_url, value)


async def test_a_controller_whose_token_lapsed_dials_again_with_a_fresh_one(
    tmp_path: Path,
) -> None:
    async with open_stack(tmp_path) as stack:
        minter = Minter(stack, lifetime=300.0)
        provider = CallableProvider(minter.token)
        async with Controller.connect(provider, controller="me") as controller:
            run = await controller.attach(RUN)
            minter.lifetime = -60.0
            stack.hub.forget("control:me")
            await stack.hub.drop("control:me")
            await until(lambda: controller.status().reason == "expired")
            minter.lifetime = 300.0
            assert (await run.exec("echo back")).stdout == b"back\n"


async def test_a_controller_hands_over_where_hubs_end_connections_with_their_tokens(
    tmp_path: Path,
) -> None:
    async with open_stack(tmp_path) as stack:
        stack.hub.faults.enforce_expiry = True
        minter = Minter(stack, lifetime=2.0)
        provider = CallableProvider(minter.token)
        async with Controller.connect(provider, controller="me") as controller:
            run = await controller.attach(RUN)
            await until(lambda: controller.status().handovers >= 2)
            assert (await run.exec("echo still here")).stdout == b"still here\n"
            assert controller.status().reconnects - controller.status().handovers <= 1


# A token file, and restarts --------------------------------------------------------------------


async def test_a_token_file_that_changes_while_all_is_well_is_taken_up_before_the_old_one_lapses(
    tmp_path: Path,
) -> None:
    async with open_stack(tmp_path, sidecars=0) as stack:
        path = tmp_path / "token"

        def write(lifetime: float) -> None:
            token = stack.hub.mint(sidecar_grant(RUN), lifetime)
            (tmp_path / "new").write_text(f"{stack.hub.address.client_url}?access_token={token}")
            os.replace(tmp_path / "new", path)

        write(2.0)
        parts = await stack.start_sidecar(token="", token_file=str(path), handover="always")
        write(300.0)
        await until(lambda: parts.channel.status().handovers == 1)
        assert parts.tokens.status().refreshes == 1
        left = parts.tokens.status().expires_in
        assert left is not None and left > 200.0


async def test_killed_between_the_answer_and_its_use_it_comes_back_on_the_channel(
    tmp_path: Path,
) -> None:
    """The answer is on the disk, and nothing has been asked with it; or it is not on the disk."""
    hub = Hub(HubSettings(platform=True))
    async with open_stack(tmp_path, sidecars=0, hub=hub) as stack:
        options = {**stack.endpoint(), "state": str(tmp_path / "state-0")}
        run_token = tmp_path / "state-0" / "run-token"
        kept: list[str] = []
        for generation in range(1, 5):
            if generation == 4:  # as if it had been killed before the last answer was written
                run_token.write_text(kept[-2])
            child = stack.start_sidecar_process(**options)
            await until(lambda: run_token.exists() and run_token.read_text() not in kept)
            child.send_signal(signal.SIGKILL)
            await anyio.to_thread.run_sync(child.wait)
            kept.append(run_token.read_text())
        stack.start_sidecar_process(**options)
        run = await stack.attach()
        assert (await run.info())["generation"] == 5


@pytest.mark.parametrize("junk", ["", '{"url": "ws', "eyJ.half"])
async def test_a_token_file_that_is_half_written_while_the_channel_is_down_costs_nothing(
    tmp_path: Path, junk: str
) -> None:
    path = tmp_path / "token"
    path.write_text("wss://hub.example/client/hubs/h?access_token=good")
    provider = TokenFile(path)
    assert (await provider.token()).value == "good"
    path.write_text(junk)
    with anyio.fail_after(5):
        await provider.changed()
    assert (await provider.token()).value == "good"
