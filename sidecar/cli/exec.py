"""`sidecar exec`: a program in the sandbox, as if it were here.

Three forms: with pipes, with a terminal (`-t`), and on its own (`-d`). The exit status is in
`sidecar.cli.ending`.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import click

from sidecar.cli.detachkeys import DEFAULT, parse_keys
from sidecar.cli.ending import FAILED, Outcome, exit_status
from sidecar.cli.order import Order, order, program_options
from sidecar.cli.output import explain, fail_usage, show, show_json
from sidecar.cli.target import Target, on_run, target_options
from sidecar.errors import CallError, ChannelError, SettingsError
from sidecar.protocol.ids import show as show_id

if TYPE_CHECKING:
    from sidecar.client import Options, Run


@click.command(name="exec", context_settings={"allow_interspersed_args": False})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="[--] CMD...")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal: ours.")
@click.option("-d", "--detach", is_flag=True, help="Start it, print its ID, and leave it.")
@click.option(
    "--detach-keys",
    default=DEFAULT,
    show_default=True,
    metavar="KEYS",
    help='With -t: leave it and let it go on; "" for none.',
)
@click.option("-n", "--no-stdin", is_flag=True, help="Do not read standard input.")
@click.option("--json", "as_json", is_flag=True, help="Status and output as one line of JSON.")
@program_options
@target_options
def exec(
    target: Target,
    command: tuple[str, ...],
    tty: bool,
    detach: bool,
    detach_keys: str,
    no_stdin: bool,
    as_json: bool,
    **options: Any,
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
      sidecar exec -t -- vim notes.txt
      id=$(sidecar exec -d -- make world); sidecar logs --follow $id

    \b
    Exit status: the program's (128 + n if signal n ended it), or
      124  it ran longer than a timeout    125  sidecar itself failed, or we left
      126  it cannot be executed           127  there is no such program

    With -t it has a terminal of our size: every key goes to it, also Ctrl-C and Ctrl-Z, and it
    does not end with us. Leave it by Ctrl-P Ctrl-Q, a signal or a lost connection, and come back
    with `sidecar attach`. What it prints while nobody is there is kept: see `sidecar logs`.

    With -d it has no input, and -t gives it a terminal all the same.

    With --json, text is a string and other bytes are {"base64": "..."}; of each output 16 MiB
    are kept, and `dropped` counts the rest.
    """
    wanted = order(command, **options)
    if detach:
        return _start(target, wanted, tty, as_json)
    if tty:
        return _at_terminal(target, wanted, detach_keys, has_input=not no_stdin, as_json=as_json)
    return _with_pipes(target, wanted, stdin=not no_stdin, as_json=as_json)


def _with_pipes(target: Target, order: Order, *, stdin: bool, as_json: bool) -> int:
    from sidecar.cli.piping import carry_out, stdin_is_for_us

    stdin = stdin and stdin_is_for_us()
    return finish(lambda: carry_out(target, order, stdin, as_json), order, is_told=as_json)


def _at_terminal(target: Target, order: Order, keys: str, *, has_input: bool, as_json: bool) -> int:
    from sidecar.cli.terminal import start_and_hold

    if as_json or not has_input:
        raise fail_usage("-t ties two terminals together: it does not go with --json or -n")
    if not os.isatty(0):
        raise fail_usage(
            "-t needs a terminal as standard input. Without -t, input and output are pipes;"
            " with -t -d the program has a terminal that `sidecar attach` goes to"
        )
    try:
        sequence = parse_keys(keys)
    except ValueError as error:
        raise fail_usage(f"--detach-keys: {error}") from None
    return finish(lambda: start_and_hold(target, order, sequence), order)


def finish(
    work: Callable[[], Awaitable[Outcome]], order: Order | None = None, *, is_told: bool = False
) -> int:
    """Do it, in an event loop; the exit status."""
    import anyio

    try:
        outcome = anyio.run(work)
    except (CallError, ChannelError, SettingsError, OSError) as error:
        explain(error)
        return FAILED
    return exit_status(outcome, name=None if order is None else order.name, is_told=is_told)


def _start(target: Target, order: Order, has_terminal: bool, as_json: bool) -> int:
    from sidecar.cli.tty import size_of, term
    from sidecar.client import Terminal

    async def verb(run: Run) -> int:
        options: Options = order.options
        if has_terminal:
            options = {**options, "terminal": Terminal(*size_of(0), term())}
        try:
            remote = await run.start(order.program, **options)
        except CallError as error:
            return exit_status(Outcome(error=error), name=order.name)
        if as_json:
            show_json({"exec": show_id(remote.id), "pid": remote.pid})
        else:
            show(show_id(remote.id))
        return 0

    return on_run(target, verb)
