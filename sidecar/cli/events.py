"""`sidecar events`: what happened in a run, and what happens."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from sidecar.cli.describe import describe_event, describe_gap
from sidecar.cli.output import fail_usage, show, show_json
from sidecar.cli.target import Target, on_run, target_options
from sidecar.errors import NetworkFailure

if TYPE_CHECKING:
    from sidecar.client import Cursor, Event, Gap, Run

STALLED = 30.0  # seconds without one of the events that are there


@click.command()
@click.option("--after", metavar="CURSOR", help="Go on from here: a `cursor` of --json, or a seq.")
@click.option("-f", "--follow", is_flag=True, help="Go on with those that come, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, with its cursor.")
@target_options
def events(target: Target, after: str | None, follow: bool, as_json: bool) -> int:
    """The events of the run, oldest first, each once; without --follow those that are there now.

    \b
    Examples:
      sidecar events
      sidecar events --follow --json | jq -c 'select(.name == "exec.ended")'
      sidecar events --after 0190b6...:42

    What cannot be had any more is shown as a gap. In JSON, bytes are {"base64": "..."}.
    """
    start = _cursor(after)

    async def verb(run: Run) -> None:
        last = None if follow else (await run.info())["events"]["last"]
        await _print_events(run, start, last, as_json)

    return on_run(target, verb)


async def _print_events(run: Run, start: Cursor, last: int | None, as_json: bool) -> None:
    """From `start` to the number `last`; None: for ever."""
    import anyio

    async with run.events(start) as stream:
        with anyio.move_on_after(STALLED):
            await stream.attached.wait()
        known = None if stream.answer is None else stream.answer.series
        is_same_series = start.series in (None, known)
        if last is not None and (last == 0 or (is_same_series and start.seq >= last)):
            return
        while True:
            with anyio.move_on_after(None if last is None else STALLED) as scope:
                item = await stream.receive()
            if scope.cancelled_caught:
                raise NetworkFailure(f"no event came in {STALLED:.0f} s, and there are more")
            _show(item, as_json)
            if last is not None and item.cursor.seq >= last:
                return


def _show(item: Event | Gap, as_json: bool) -> None:
    from sidecar.client import Event

    if isinstance(item, Event):
        if as_json:
            show_json(
                {
                    "cursor": str(item.cursor),
                    "seq": item.seq,
                    "time": datetime.fromtimestamp(item.time, UTC).isoformat(),
                    "name": item.name,
                    "call": None if item.call is None else item.call.hex(),
                    "data": item.data,
                }
            )
            return
        clock = time.strftime("%H:%M:%S", time.localtime(item.time))
        clock += f".{int(item.time * 1000) % 1000:03}"
        show(f"{clock}  {item.seq:>6}  {item.name:<18}  {describe_event(item)}".rstrip())
    elif as_json:
        gap = {"first": item.first, "last": item.last, "why": item.why, "bytes": item.bytes}
        show_json({"cursor": str(item.cursor), "gap": gap})
    else:
        show(f"-- {describe_gap(item)}")


def _cursor(text: str | None) -> Cursor:
    from sidecar.client import Cursor

    if text is None:
        return Cursor()
    try:
        return Cursor.parse(text)
    except ValueError:
        raise fail_usage(f"--after {text!r} is no cursor: see `sidecar events --json`") from None
