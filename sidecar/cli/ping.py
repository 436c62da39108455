"""`sidecar ping`: how long the way through hub and sidecar takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sidecar.cli.output import show, show_json
from sidecar.cli.target import Target, on_run, target_options

if TYPE_CHECKING:
    from sidecar.client import Run

TIMEOUT = 30.0  # seconds for one answer


@click.command()
@click.option("-c", "--count", default=4, type=click.IntRange(1, 1_000_000), help="Default: 4.")
@click.option(
    "-i", "--interval", default=1.0, type=click.FloatRange(0, 3600), help="Seconds. Default: 1."
)
@click.option("--json", "as_json", is_flag=True, help="One line of JSON at the end, in seconds.")
@target_options
def ping(target: Target, count: int, interval: float, as_json: bool) -> int:
    """Measure round trips: this process, hub, sidecar, and back.

    \b
    Examples:
      sidecar ping
      sidecar ping -c 100 -i 0 --json
    """
    import anyio

    async def verb(run: Run) -> None:
        times: list[float] = []
        for n in range(count):
            if n:
                await anyio.sleep(interval)
            with anyio.fail_after(TIMEOUT):
                times.append(await run.ping())
            if not as_json:
                show(f"{run.id}: {times[-1] * 1000:.2f} ms")
        _summarize(run.id, times, as_json)

    return on_run(target, verb)


def _summarize(run: str, times: list[float], as_json: bool) -> None:
    least, middle, most = min(times), sorted(times)[len(times) // 2], max(times)
    if as_json:
        show_json({"run": run, "count": len(times), "min": least, "median": middle, "max": most})
    elif len(times) > 1:
        show(f"min {least * 1000:.2f} ms, median {middle * 1000:.2f} ms, max {most * 1000:.2f} ms")
