"""Small events to one reader: journalled, sent, received and decoded, against the pump."""

from __future__ import annotations

import os

from sidecar.client import Cursor, Event, EventStream
from tests.bench import emitter
from tests.bench.measure import Scale, Side, interleave, ratio, seconds
from tests.bench.pump import pump
from tests.bench.report import Row, at_least
from tests.bench.stage import Stage, hub_process, stage

EVENT = 200  # bytes
EMITTER = ("-m", "tests.bench.emitter")


async def small_events(scale: Scale) -> list[Row]:
    """One event a hub message against one message of the pump, and as many as fit against one."""
    count = scale.events
    os.environ[emitter.RECORDS] = "1"
    try:
        async with hub_process() as hub, stage(hub, run="single", program=EMITTER) as single:
            del os.environ[emitter.RECORDS]
            async with stage(hub, run="batched", program=EMITTER) as batched, pump(hub) as below:
                async with await _reading(single) as one, await _reading(batched) as many:
                    found = await interleave(
                        scale.rounds,
                        {
                            "one a frame": _side(single, one, count),
                            "batched": _side(batched, many, count),
                            "pump": lambda: below.run(count, EVENT),
                        },
                    )
    finally:
        os.environ.pop(emitter.RECORDS, None)
    behind = {name: f"{count / sorted(v)[len(v) // 2]:.0f}/s" for name, v in found.items()}
    return [
        Row(
            "events",
            f"{EVENT} bytes, one a frame / pump",
            ratio(found["pump"], found["one a frame"]),
            at_least(0.45),
            sides=behind,
            rounds=scale.rounds,
        ),
        Row(
            "events",
            f"{EVENT} bytes, batched / one a frame",
            ratio(found["one a frame"], found["batched"]),
            at_least(3),
            rounds=scale.rounds,
        ),
    ]


async def _reading(here: Stage) -> EventStream:
    info = await here.run.info()
    return here.run.events(Cursor(None, info["events"]["last"]))


def _side(here: Stage, stream: EventStream, count: int) -> Side:
    async def emit_and_read() -> None:
        await here.run.call("bench.emit", {"count": count})
        seen = 0
        while seen < count:
            item = await stream.receive()
            assert isinstance(item, Event), item
            seen += item.name == emitter.NAME

    return lambda: seconds(emit_and_read)
