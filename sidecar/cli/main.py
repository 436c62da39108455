"""The verbs that `__main__` does not dispatch itself, by click: which there are, and how they end.

A verb is imported when it is called; the table below is all that `sidecar --help` needs.

Exit status: the verb's own; 1 (125 for `exec`, as in timeout(1)) if it failed, 2 (125) for a
command line that makes no sense, 130 after Ctrl-C, 141 when nobody reads the output any more.
"""

from __future__ import annotations

import difflib
import importlib
import logging
import os
import sys
import threading
from collections.abc import Sequence

import click

from sidecar import __version__
from sidecar.cli.output import BROKEN_PIPE, FAILED, complain, explain, set_up_streams
from sidecar.errors import CallError, ChannelError, SettingsError

EXEC_FAILED = 125
INTERRUPTED = 130

SECTIONS = {
    "Start here": {
        "demo": "See all of it at work, in one minute.",
        "dev": "A hub and a sidecar on a folder of this machine.",
    },
    "Use a sidecar": {
        "exec": "Run a program in the sandbox, as if it were here.",
        "attach": "Come back to a program that runs.",
        "ps": "Which programs run.",
        "logs": "What a program printed.",
        "kill": "End programs with all that they started.",
        "cp": "Copy a file in or out.",
        "ls": "List a directory.",
        "cat": "Print files.",
        "search": "Find lines in files.",
        "edit": "Edit a file with the editor of this machine.",
        "watch": "What changes in a directory, as it happens.",
        "events": "What happened, and what happens.",
        "info": "Who the sidecar is, and how it is.",
        "ping": "Measure the way there and back.",
    },
    "Run one": {
        "run": "Serve one run; what a sandbox image starts.",
        "hands": "The half that acts, for a container of its own.",
        "supervise": "Both halves as two users, for an image that starts as root.",
        "health": "Is the sidecar of this sandbox well? For health checks.",
        "drain": "End the run, and wait until all is delivered.",
        "repoint": "Give this sandbox's sidecar another token, hub or endpoint.",
        "hub": "The embedded hub alone.",
        "install": "Put the sidecar into a volume, for images that do not have it.",
        "token": "Mint a token, for the hub of `sidecar dev` or any other.",
    },
}
VERBS = {name: text for verbs in SECTIONS.values() for name, text in verbs.items()}


class Verbs(click.Group):
    """Looks verbs up in the table and imports the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        found = getattr(importlib.import_module(f"sidecar.cli.{cmd_name}"), cmd_name)
        assert isinstance(found, click.Command)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name in VERBS or name.startswith("-"):
            return super().resolve_command(ctx, args)
        close = difflib.get_close_matches(name, VERBS, n=1, cutoff=0.5)
        hint = f" Did you mean `sidecar {close[0]}`?" if close else ""
        raise click.UsageError(f"There is no verb {name!r}.{hint}", ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, verbs in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(list(verbs.items()))


@click.group(
    cls=Verbs,
    subcommand_metavar="VERB ...",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
)
@click.version_option(__version__, prog_name="sidecar", message="%(prog)s %(version)s")
def cli() -> None:
    """Runs beside a coding agent in a sandbox that nobody can dial into, dials out to a hub, and
    does there what the platform asks.

    \b
    Try it, in two terminals:
      sidecar dev                       serve this folder
      sidecar exec -- git status        run a program in it, from anywhere
      sidecar cp notes.txt :            copy a file there
      sidecar events --follow           watch
    """


def main(arguments: Sequence[str]) -> int:
    """The command line; its exit status."""
    set_up_streams()
    logging.getLogger().addHandler(logging.NullHandler())  # what people need is said by the verbs
    status = _main(arguments)
    if threading.active_count() > 1:
        # It writes to somebody who does not read, and the interpreter would wait for it.
        os._exit(status)
    return status


def _main(arguments: Sequence[str]) -> int:
    is_exec = arguments[:1] in (["exec"], ["attach"])
    try:
        # Not `cli.main`, which makes a broken pipe look like any other failure.
        with cli.make_context("sidecar", list(arguments)) as context:
            status = cli.invoke(context)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.ClickException as error:
        error.show()
        return EXEC_FAILED if is_exec else error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the interpreter flushes once more
        return BROKEN_PIPE
    except (CallError, ChannelError, SettingsError, OSError) as error:
        explain(error)
    except ModuleNotFoundError as error:
        _explain_missing(error)
    return EXEC_FAILED if is_exec else FAILED


def _explain_missing(error: ModuleNotFoundError) -> None:
    """Without the extra, the hub's packages are not there."""
    if (error.name or "").partition(".")[0] not in ("starlette", "uvicorn", "jwt"):
        raise error
    complain(f"this needs {error.name}: pip install 'sandbox-sidecar[dev]'")
