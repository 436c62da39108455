"""`sidecar logs`: what a program printed, byte for byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sidecar.cli.output import complain, fail_usage
from sidecar.cli.processid import find
from sidecar.cli.target import Target, on_run, target_options

if TYPE_CHECKING:
    from sidecar.client import Process, ProcessInfo, Run

NAMES = {1: "stdout", 2: "stderr"}


@click.command()
@click.argument("id", metavar="ID")
@click.option("-f", "--follow", is_flag=True, help="Go on until the program ends, or Ctrl-C.")
@click.option("--from", "start", type=click.IntRange(0), metavar="OFFSET", help="Begin here.")
@click.option("--tail", type=click.IntRange(0), metavar="BYTES", help="Begin so far from the end.")
@click.option("--stdout", "only", flag_value=1, type=int, help="Only what it printed there.")
@click.option("--stderr", "only", flag_value=2, type=int, help="Only that, and to our stdout.")
@target_options
def logs(
    target: Target,
    id: str,
    follow: bool,
    start: int | None,
    tail: int | None,
    only: int | None,
) -> int:
    """What a program printed until now: its stdout to ours, its stderr to ours. Programs that have
    ended are remembered for a while.

    \b
    Examples:
      sidecar logs 0190b6c2-7d3f
      sidecar logs --follow --tail 4096 0190b6c2
      sidecar logs --stderr 0190b6c2 > errors.txt
      sidecar logs --from 1048576 0190b6c2 > rest

    Offsets count bytes of each output. Of a long output the first 4 MiB and the last 12 MiB are
    kept; what is missing is told on stderr, in one line.
    """
    if start is not None and tail is not None:
        raise fail_usage("--from and --tail both say where to begin: one of them is expected")

    async def verb(run: Run) -> None:
        info, remote = await find(run, id)
        wanted = {n: _start(info, n, start, tail) for n in ((only,) if only else (1, 2))}
        attaching = remote.attach(stdout=wanted.get(1), stderr=wanted.get(2), follow=follow)
        async with attaching as process:
            try:
                await _print(process, to_stdout=only)
            finally:
                _tell_missing(process)

    return on_run(target, verb)


def _start(info: ProcessInfo, n: int, start: int | None, tail: int | None) -> int:
    if tail is not None:
        return max(0, info.sizes.get(n, 0) - tail)
    return start or 0


async def _print(process: Process, to_stdout: int | None) -> None:
    from sidecar.cli.piping import write_all

    async for n, data in process.output():
        await write_all(1 if n == to_stdout else n, data)


def _tell_missing(process: Process) -> None:
    missing = [
        f"{NAMES[n]} {first} to {end - 1}"
        for n, ranges in process.skipped.items()
        for first, end in ranges
    ]
    if missing:
        complain(f"bytes that were not kept: {', '.join(missing)}")
