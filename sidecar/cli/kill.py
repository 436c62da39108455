"""`sidecar kill`: end programs with everything that they started, or send them a signal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sidecar.cli.output import FAILED, explain, fail_usage
from sidecar.cli.target import Target, on_run, target_options
from sidecar.errors import CallError

if TYPE_CHECKING:
    from sidecar.client import Run
    from sidecar.client.processes import Target as Whom


@click.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("-s", "--signal", "name", metavar="NAME", help="Only send this, as INT or 2.")
@click.option(
    "--to",
    type=click.Choice(["program", "group", "foreground", "tree"]),
    help="With --signal: who gets it.  [default: group]",
)
@click.option(
    "--grace",
    type=click.FloatRange(0, 60),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between TERM and KILL.",
)
@target_options
def kill(
    target: Target, ids: tuple[str, ...], name: str | None, to: Whom | None, grace: float
) -> int:
    """End programs: TERM, and KILL after a grace, to each with everything that it started, in
    whatever session or group that is. Returns when nothing of them is left.

    \b
    Examples:
      sidecar kill 0190b6c2-7d3f
      sidecar kill --grace 30 0190b6c2
      sidecar kill --signal INT --to foreground 0190b6c2    as Ctrl-C does at its terminal

    IDs are in `sidecar ps`. One that has ended is killed for what it left behind. The status is 1
    if any ID is not known, or could not be killed; the others are killed all the same.
    """
    if to is not None and name is None:
        raise fail_usage("--to goes with --signal: without it everything is ended")

    async def verb(run: Run) -> int:
        import anyio

        from sidecar.client import RemoteProcess
        from sidecar.client.processes import match_process

        known = await run.processes()
        statuses: list[int] = []

        async def one(id: str) -> None:
            try:
                info = match_process(known, id)
                remote = RemoteProcess(run, info.id, info.pid)
                if name is not None:
                    await remote.signal(name, to=to or "group")
                else:
                    await remote.kill(grace=grace)
            except CallError as error:
                explain(error)
                statuses.append(FAILED)

        async with anyio.create_task_group() as group:
            for id in ids:
                group.start_soon(one, id)
        return max(statuses, default=0)

    return on_run(target, verb)
