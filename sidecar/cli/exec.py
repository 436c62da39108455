"""`sidecar exec`: a program in the sandbox, as if it were here.

The exit status is the program's: its own, or 128 + the signal that ended it. Else, as timeout(1)
and the shells have it: 124 it ran too long, 125 sidecar itself failed, 126 it cannot be executed,
127 there is no such program, 130 and 143 we were told to end, 141 nobody reads our output.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from sidecar.cli.output import complain, explain, fail_usage, wire_path
from sidecar.cli.target import Target, target_options
from sidecar.errors import CallError, ChannelError, Code, SettingsError

if TYPE_CHECKING:
    from sidecar.cli.piping import Outcome

TIMED_OUT = 124
FAILED = 125
NOT_EXECUTABLE = 126
NOT_FOUND = 127


@dataclass(frozen=True, slots=True)
class Order:
    """What to run, and how."""

    program: list[str | bytes] | str
    cwd: str | bytes | None
    env: dict[str, str]
    timeout: float | None
    stdin: bool
    as_json: bool


@click.command(name="exec", context_settings={"allow_interspersed_args": False})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="[--] CMD...")
@click.option("--cwd", metavar="DIR", help="Where to run it. Default: the workspace.")
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="End it after that long, with status 124.",
)
@click.option("--env", multiple=True, metavar="NAME=VALUE", help="Also set this; may be repeated.")
@click.option("--shell", is_flag=True, help="CMD is a command line for /bin/sh.")
@click.option("-n", "--no-stdin", is_flag=True, help="Do not read standard input.")
@click.option("--json", "as_json", is_flag=True, help="Status and output as one line of JSON.")
@target_options
def exec(
    target: Target,
    command: tuple[str, ...],
    cwd: str | None,
    timeout: float | None,
    env: tuple[str, ...],
    shell: bool,
    no_stdin: bool,
    as_json: bool,
) -> int:
    """Run a program in the sandbox. Its output comes as it is printed, our standard input goes
    to it unless it is a terminal, and its exit status is ours. Ctrl-C ends it there.

    \b
    Examples:
      sidecar exec -- git status
      sidecar exec --shell 'echo $HOME | wc -c'
      tar c src | sidecar exec --cwd build -- tar x
      sidecar exec --timeout 60 --env CI=1 -- make test
      sidecar exec --json -- id | jq -r .stdout

    \b
    Exit status: the program's (128 + n if signal n ended it), or
      124  it ran longer than --timeout    125  sidecar itself failed
      126  it cannot be executed           127  there is no such program

    With --json, text is a string and other bytes are {"base64": "..."}; of each output 16 MiB
    are kept, and `dropped` counts the rest.
    """
    from sidecar.cli.piping import stdin_is_for_us

    order = Order(
        program=_program(command, shell),
        cwd=None if cwd is None else wire_path(cwd),
        env=dict(_variable(item) for item in env),
        timeout=timeout,
        stdin=not no_stdin and stdin_is_for_us(),
        as_json=as_json,
    )
    return run_order(target, order)


def run_order(target: Target, order: Order) -> int:
    """Carry it out; the exit status."""
    import anyio

    from sidecar.cli.piping import carry_out

    try:
        outcome = anyio.run(carry_out, target, order)
    except (CallError, ChannelError, SettingsError, OSError) as error:
        explain(error)
        return FAILED
    return _status(outcome, order)


def _status(outcome: Outcome, order: Order) -> int:
    if outcome.signal is not None:
        return 128 + outcome.signal
    if outcome.failure is not None:
        if isinstance(outcome.failure, BrokenPipeError):
            return 128 + signal.SIGPIPE
        explain(outcome.failure)
        return FAILED
    if outcome.error is not None:
        if not order.as_json:
            complain(str(outcome.error))
        return _status_of_error(outcome.error, order)
    assert outcome.completed is not None
    for n, count in outcome.completed.dropped.items():
        complain(f"{count} bytes of its {'stdout' if n == 1 else 'stderr'} were not kept")
    return outcome.completed.returncode


def _status_of_error(error: CallError, order: Order) -> int:
    if error.code is Code.TIMEOUT:
        return TIMED_OUT
    # A working directory that is not there is no missing program.
    name = order.program if isinstance(order.program, str) else order.program[0]
    if os.fsencode(error.details.get("path") or b"") != os.fsencode(name):
        return FAILED
    if error.code is Code.NOT_FOUND:
        return NOT_FOUND
    is_refused = error.code in (Code.PERMISSION_DENIED, Code.IS_DIRECTORY)
    return NOT_EXECUTABLE if is_refused or error.details.get("errno") == "ENOEXEC" else FAILED


def _program(command: tuple[str, ...], shell: bool) -> list[str | bytes] | str:
    if not shell:
        return [wire_path(word) for word in command]
    line = wire_path(" ".join(command))
    return line if isinstance(line, str) else ["/bin/sh", "-c", line]


def _variable(item: str) -> tuple[str, str]:
    name, equals, value = item.partition("=")
    if not name or not equals:
        raise fail_usage(f"--env {item!r}: NAME=VALUE expected")
    if not isinstance(wire_path(item), str):
        raise fail_usage(f"--env {name}: a value that is not UTF-8 cannot be passed")
    return name, value
