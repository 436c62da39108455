"""What follows from what the platform says of a sidecar."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from stack import PATIENCE, Stack, open_stack, until

from sidecar.client import CallError, Code, Event, Run
from sidecar.errors import Retry, Started
from sidecar.parts import health_of
from sidecar.statefile import State


def noted(stack: Stack) -> tuple[str, str | None]:
    found = json.loads((stack.sidecar.folder / "state.json").read_text())
    return found["state"], found["why"]


async def first_event(run: Run, name: str) -> Event:
    async with run.events() as events:
        async for event in events:
            if isinstance(event, Event) and event.name == name:
                return event
    raise AssertionError(f"no event {name}")


async def test_who_was_superseded_takes_no_calls_and_delivers_what_there_is(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack:
        run = await stack.attach()
        async with run.open("exec.run", {"shell": "read line", "stdin": "stream"}) as call:
            await until(lambda: call.accepted)
            stack.sidecar.tokens.hooks.superseded()
            with pytest.raises(CallError) as caught:
                await run.exec(["true"])
            error = caught.value
            assert (error.code, error.started) == (Code.ENDING, Started.NO)
            assert error.retry is Retry.SAME_ID, "the other sidecar may take it"
            await until(lambda: stack.sidecar.state.state is State.SUPERSEDED)
            assert (await first_event(run, "sidecar.superseded")).data["why"]
            assert not call.has_ended
        await until(lambda: noted(stack)[0] == "superseded")
        health = health_of(stack.sidecar)
        assert (health["healthy"], health["state"]) == (False, "superseded")
        assert "sidecar repoint" in health["why"]


async def test_a_repoint_that_is_accepted_makes_it_serve_again(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack:
        run = await stack.attach()
        hooks = stack.sidecar.tokens.hooks
        hooks.superseded()
        hooks.accepted()
        assert (await run.exec(["true"])).status == 0
        await first_event(run, "sidecar.accepted")
        assert noted(stack) == ("running", None)


async def test_who_is_refused_goes_on_with_its_work_and_says_so(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack:
        run = await stack.attach()
        stack.sidecar.tokens.hooks.refused("the token is for another hub; replace the token file")
        await first_event(run, "sidecar.refused")
        assert noted(stack) == ("refused", "the token is for another hub; replace the token file")
        assert (await run.exec(["true"])).status == 0


async def test_a_run_that_the_platform_has_ended_is_ended_here(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack:
        await stack.attach()
        stack.sidecar.tokens.hooks.ended()
        assert stack.sidecar.ending.ends_run
        assert stack.sidecar.ending.time_left <= stack.sidecar.settings.drain


async def test_who_is_told_to_end_is_not_brought_back_by_a_good_token(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack:
        run = await stack.attach()
        hooks = stack.sidecar.tokens.hooks
        hooks.superseded()
        hooks.ended()
        hooks.accepted()
        with pytest.raises(CallError) as caught:
            await run.call("sidecar.ping", deadline=PATIENCE)
        assert caught.value.code is Code.ENDING
