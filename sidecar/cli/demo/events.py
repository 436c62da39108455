"""What a reader of the run's events has seen by the end of the tour, cuts included."""

from __future__ import annotations

from collections import Counter

import anyio

from sidecar.cli.demo.report import Line, first_problem
from sidecar.cli.demo.stage import Stage
from sidecar.client import Event, Gap

CATCH_UP = 5.0  # seconds


async def count_events(stage: Stage) -> list[Line]:
    """Every number from 1 on, each once, and for every program a start and an end."""
    promise = "every event arrives once, in order"
    last = (await stage.run.info())["events"]["last"]
    with anyio.move_on_after(CATCH_UP):
        await stage.follower.until(last)
    items = stage.follower.items[:]
    events = [item for item in items if isinstance(item, Event)]
    names = Counter(event.name for event in events)
    stage.screen.say(", ".join(f"{count} {name}" for name, count in names.most_common()))
    problem = first_problem(
        (not any(isinstance(item, Gap) for item in items), "a gap was told"),
        ([event.seq for event in events] == list(range(1, last + 1)), _break(events, last)),
        (
            _calls(events, "exec.started") == _calls(events, "exec.ended"),
            "starts and ends of programs do not match",
        ),
    )
    return [Line("events", promise, f"{len(events)} of {last} events", problem)]


def _calls(events: list[Event], name: str) -> Counter[bytes | None]:
    return Counter(event.call for event in events if event.name == name)


def _break(events: list[Event], last: int) -> str:
    """The first number that is not the one after the last."""
    for expected, event in enumerate(events, start=1):
        if event.seq != expected:
            return f"event {event.seq} came where {expected} was expected"
    return f"{len(events)} events came, there are {last}"
