"""`sidecar ps`: the programs of a run, and what they left behind."""

from __future__ import annotations

import os
import shlex
import signal
from typing import TYPE_CHECKING

import click

from sidecar.cli.output import show, show_json
from sidecar.cli.processid import short, short_length
from sidecar.cli.target import Target, on_run, target_options
from sidecar.protocol.ids import show as show_id

if TYPE_CHECKING:
    from sidecar.client import ProcessInfo, Run

WIDTH = 72  # characters of a command
HEAD = ("ID", "PID", "STATE", "AGE", "COMMAND")


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Also those that have ended.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@target_options
def ps(target: Target, everything: bool, as_json: bool) -> int:
    """The programs that run, whoever started them, oldest first; and those that have ended and
    left processes behind, which `sidecar kill` ends, too.

    \b
    Examples:
      sidecar ps
      sidecar ps --all
      sidecar ps --json | jq -r 'select(.age > 3600) | .exec' | xargs -r sidecar kill

    An ID may be shortened to whatever no other begins with. In JSON `state` is running, ended or
    unknown (nobody saw how it ended), `age` is seconds, `survivors` what was left behind.
    """

    async def verb(run: Run) -> None:
        known = await run.processes()
        _print([info for info in known if everything or info.is_alive], as_json)

    return on_run(target, verb)


def _print(processes: list[ProcessInfo], as_json: bool) -> None:
    if as_json:
        for info in processes:
            show_json(_as_json(info))
        return
    length = short_length(info.id for info in processes)
    rows = [HEAD, *(_row(info, length) for info in processes)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD) - 1)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        show("  ".join([*cells, row[-1]]))


def _row(info: ProcessInfo, length: int) -> tuple[str, ...]:
    return (
        short(info.id, length),
        str(info.pid),
        state_of(info),
        age_of(info.age),
        command_of(info),
    )


def state_of(info: ProcessInfo) -> str:
    state: str = info.state
    if info.status is not None:
        state = f"exited {info.status}"
    elif info.signal is not None:
        state = f"killed by {_signal_name(info.signal)}"
    if info.timed_out is not None:
        state += f" ({info.timed_out} timeout)"
    left = len(info.survivors) + info.more_survivors
    return f"{state}, left {left} behind" if left else state


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name.removeprefix("SIG")
    except ValueError:
        return str(number)


def age_of(seconds: float) -> str:
    """In the two largest units that it has."""
    whole = int(seconds)
    for size, unit, below, small in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "m"),
        (60, "m", 1, "s"),
    ):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // below:02}{small}"
    return f"{whole}s"


def command_of(info: ProcessInfo) -> str:
    """On one line, as one might type it."""
    if info.shell is not None:
        text = info.shell
    else:
        text = (
            shlex.join(os.fsdecode(word) for word in info.argv)
            or "(unknown: started before this sidecar)"
        )
    line = " ".join(text.split())
    return (
        line
        if len(line) <= WIDTH and not info.cut
        else line[: WIDTH - 1] + "\N{HORIZONTAL ELLIPSIS}"
    )


def _as_json(info: ProcessInfo) -> dict[str, object]:
    return {
        "exec": show_id(info.id),
        "pid": info.pid,
        "state": info.state,
        "status": info.status,
        "signal": info.signal,
        "timed_out": info.timed_out,
        "argv": info.argv or None,
        "shell": info.shell,
        "cut": info.cut,
        "owner": info.owner,
        "age": round(info.age, 3),
        "terminal": info.terminal and {"rows": info.terminal.rows, "cols": info.terminal.cols},
        "stdout": info.sizes.get(1),
        "stderr": info.sizes.get(2),
        "survivors": [{"pid": one.pid, "name": one.name} for one in info.survivors],
        "more_survivors": info.more_survivors,
    }
