"""`sidecar run`: read the settings, set up the log, serve.

Parsed without click, because everything before `hello` is time that somebody waits.

Exit status: what `runtime.run` says (0 ended, 69 no channel, 75 something was left over), or
2 for a command line that makes no sense, 70 for a defect of ours, and from sysexits(3) 78 for
settings, 77 for a state folder that cannot be used, 75 for one that another sidecar uses.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from sidecar.cli.flags import describe_flags, parse_settings
from sidecar.cli.log import log_to_stderr
from sidecar.cli.usage import BadUsage
from sidecar.errors import SettingsError
from sidecar.settings import Settings, load

EX_USAGE = 2  # as click and getopt programs have it, for one habit in all verbs
EX_SOFTWARE = 70
EX_TEMPFAIL = 75
EX_NOPERM = 77
EX_CONFIG = 78

HELP = """\
Usage: sidecar run [FLAGS]

Serve one run: dial out to the hub, do what the run's controllers ask, until SIGTERM or SIGINT.
It listens on no network port. Usable as PID 1.

Examples:
  SIDECAR_RUN=demo SIDECAR_TOKEN_FILE=/run/sidecar/token sidecar run
  sidecar run --run demo --token-file token --workspace ~/work --log-level debug
  sidecar dev                    all that is needed on one machine, hub included

Settings, as a flag or as a variable; a flag goes first:
{flags}

Exit status: 0 ended, 69 there was no channel for what was left, 75 something was left over, or the
state folder is in use, 77 the state folder cannot be used, 78 settings, 2 bad command line.
"""


def main(arguments: Sequence[str]) -> int:
    """The whole verb; `arguments` are those after `run`."""
    if "--help" in arguments or "-h" in arguments:
        print(HELP.format(flags=describe_flags()), end="")
        return 0
    try:
        pid, rest = _parent(arguments)
        settings = load(os.environ, **parse_settings(rest))
    except BadUsage as error:
        return _fail(EX_USAGE, f"{error} (see `sidecar run --help`)")
    except SettingsError as error:
        return _fail(EX_CONFIG, str(error))
    if pid is not None:
        from sidecar.cli.bond import die_with

        die_with(pid)
    _end_early_if_told()
    log_to_stderr(settings.log_level)
    return _serve(settings)


def _serve(settings: Settings) -> int:
    import anyio

    from sidecar import runtime
    from sidecar.statefolder import StateLocked, StateUnusable

    try:
        return anyio.run(runtime.run, settings)
    except SettingsError as error:
        return _fail(EX_CONFIG, str(error))
    except StateUnusable as error:
        return _fail(EX_NOPERM, str(error))
    except StateLocked as error:
        return _fail(EX_TEMPFAIL, str(error))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception:
        logging.getLogger("sidecar").exception("a defect ended the sidecar")
        return EX_SOFTWARE


def _fail(status: int, problems: str) -> int:
    for line in problems.splitlines():
        print(f"sidecar run: {line}", file=sys.stderr)
    return status


def _end_early_if_told() -> None:
    """Until the runtime listens for SIGTERM; PID 1 would not even get it (kill(2), NOTES)."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, end)


def _parent(arguments: Sequence[str]) -> tuple[int | None, list[str]]:
    """`--with-parent PID` comes from `sidecar dev`, first, and is not for people."""
    if arguments[:1] != ["--with-parent"]:
        return None, list(arguments)
    if len(arguments) < 2 or not arguments[1].isdecimal():
        raise BadUsage("--with-parent needs the process id of our parent")
    return int(arguments[1]), list(arguments[2:])
