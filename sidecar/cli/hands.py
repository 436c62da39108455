"""`sidecar hands`: the half that acts, as a process of its own.

Parsed without click, like `run`: a container waits for it.

Exit status: that of the command after `--` (126 it cannot be run, 127 it is not there), 0 ended
by SIGTERM, 2 for a command line that makes no sense, 70 for a defect of ours, and from
sysexits(3) 78 for settings, 77 for a socket that cannot be made, 75 for one that another hands
listens at.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Literal

from sidecar.access import problem_of_folder
from sidecar.cli.log import log_to_stderr
from sidecar.cli.usage import BadUsage
from sidecar.errors import CallError, SettingsError
from sidecar.hands.rootlist import parse_roots, problems_of_roots

EX_USAGE = 2
EX_SOFTWARE = 70
EX_TEMPFAIL = 75
EX_NOPERM = 77
EX_CONFIG = 78

LEVELS = ("debug", "info", "warning", "error")
MAX_UID = 2**32 - 2  # the last one means "no change" (chown(2))

HELP = """\
Usage: sidecar hands --socket PATH [FLAGS] [-- COMMAND...]

The half that acts, apart from the half that holds the token: it opens files and starts programs
for the `sidecar run --hands PATH` that connects to its socket. Start it as the user, and in the
container, where programs shall run. It holds no token, and outlives a sidecar that is restarted.

Examples:
  sidecar hands --socket /run/sidecar/hands.sock --workspace /work
  sidecar hands --socket /shared/hands.sock --core-uid 1500 -- ./entrypoint.sh
        The entry point of a container: runs its command, too, and ends as it ends.
  sidecar run --run demo --token-file /run/token --hands /run/sidecar/hands.sock
        The other half, which may be another user in another container.

Flags:
  --socket PATH
        The Unix socket to listen at, 107 bytes at most. Needed. [SIDECAR_HANDS]
  --workspace DIR
        The folder that commands may touch. [SIDECAR_WORKSPACE, default .]
  --roots PATH[:ro|:rw],...
        Further folders that commands may touch, absolute; ro, for reading only, is what nothing
        after a path means. None may lie in the workspace. [SIDECAR_ROOTS, default none]
  --environment clean|inherited
        What programs start with: PATH, HOME, LANG, ..., or all of ours less SIDECAR_*.
        [SIDECAR_ENVIRONMENT, default clean]
  --core-uid UID
        Who may connect, besides root; may be repeated. Default: our own user. The socket's
        file is open to everybody then, and the kernel is asked who calls (SO_PEERCRED).
  --cgroup DIR
        A cgroup v2 folder that was delegated to us: each program gets one of its own in it, and
        nothing escapes a kill. Costs each program 85 µs. [SIDECAR_CGROUP, default none]
  --log-level LEVEL
        debug, info, warning or error. [SIDECAR_LOG_LEVEL, default info]

COMMAND is run with our standard files and gets the signals that we get. Usable as PID 1.

Exit status: that of COMMAND (126 it cannot be run, 127 it is not there); without one 0 after
SIGTERM. 75 another hands listens at PATH, 77 the socket cannot be made, 78 settings, 2 bad
command line.
"""


@dataclass(slots=True)
class Arguments:
    """The command line, over the environment."""

    socket: str = ""
    workspace: str = "."
    roots: str = ""
    environment: str = "clean"
    cgroup: str = ""
    log_level: str = "info"
    core_uids: list[int] = field(default_factory=list)
    command: list[str] = field(default_factory=list)


def main(arguments: Sequence[str]) -> int:
    """The whole verb; `arguments` are those after `hands`."""
    ours = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if "--help" in ours or "-h" in ours:
        print(HELP, end="")
        return 0
    try:
        parsed = parse(arguments)
    except BadUsage as error:
        return _fail(EX_USAGE, f"{error} (see `sidecar hands --help`)")
    except SettingsError as error:
        return _fail(EX_CONFIG, str(error))
    _end_early_if_told()
    log_to_stderr(parsed.log_level)
    return _serve(parsed)


def parse(arguments: Sequence[str]) -> Arguments:
    """Raises `BadUsage` for what cannot be understood, `SettingsError` for what cannot be."""
    found = Arguments()
    for name, variable in _VARIABLES.items():
        setattr(found, name, os.environ.get(variable) or getattr(found, name))
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--":
            if not rest:
                raise BadUsage("a command has to follow --")
            found.command = rest
            break
        flag, equals, value = word.partition("=")
        name = flag[2:].replace("-", "_")
        if not flag.startswith("--") or name not in (*_VARIABLES, "core_uid"):
            hint = "; a command goes after --" if not flag.startswith("-") else ""
            raise BadUsage(f"{flag!r} is out of place{hint}")
        if not equals:
            if not rest:
                raise BadUsage(f"{flag} needs a value")
            value = rest.pop(0)
        if name == "core_uid":
            found.core_uids.append(_uid(value))
        else:
            setattr(found, name, value)
    _check(found)
    return found


_VARIABLES = {
    "socket": "SIDECAR_HANDS",
    "workspace": "SIDECAR_WORKSPACE",
    "roots": "SIDECAR_ROOTS",
    "environment": "SIDECAR_ENVIRONMENT",
    "cgroup": "SIDECAR_CGROUP",
    "log_level": "SIDECAR_LOG_LEVEL",
}


def _uid(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) > MAX_UID:
        raise BadUsage(f"--core-uid is {text!r}: a number expected, see `id -u`")
    return int(text)


def _check(found: Arguments) -> None:
    if not found.socket:
        raise BadUsage("--socket PATH is needed: where to listen")
    if found.environment not in ("clean", "inherited"):
        raise SettingsError(f"--environment is {found.environment!r}: clean or inherited expected")
    if found.log_level not in LEVELS:
        raise SettingsError(f"--log-level is {found.log_level!r}: {', '.join(LEVELS)} expected")
    if problem := problem_of_folder(found.workspace):
        raise SettingsError(f"--workspace is {found.workspace!r}: {problem}")
    problems = problems_of_roots(found.roots, found.workspace, "--roots")
    if problems:
        raise SettingsError("\n".join(problems))


def _serve(parsed: Arguments) -> int:
    import anyio

    from sidecar.hands.apart.listening import InUse, Unusable, listening
    from sidecar.hands.apart.process import Options, drop_tokens, run
    from sidecar.hardening import protect_memory, raise_descriptor_limit
    from sidecar.startup import problems_of_workspace

    for problem in problems_of_workspace(parsed.workspace, parsed.roots):
        logging.getLogger(__name__).warning("%s", problem)
    protect_memory()
    raise_descriptor_limit()
    drop_tokens()
    environment: Literal["clean", "inherited"] = (
        "inherited" if parsed.environment == "inherited" else "clean"
    )
    options = Options(
        workspace=parsed.workspace,
        roots=parse_roots(parsed.roots),
        environment=environment,
        core_uids=parsed.core_uids,
        command=parsed.command,
        cgroup=parsed.cgroup or None,
    )
    try:
        # Others could not open a file that is ours alone; the server asks who they are.
        with listening(parsed.socket, mode=0o666 if parsed.core_uids else 0o600) as listener:
            return anyio.run(run, options, listener)
    except InUse as error:
        return _fail(EX_TEMPFAIL, str(error))
    except Unusable as error:
        return _fail(EX_NOPERM, str(error))
    except CallError as error:
        return _fail(EX_CONFIG, error.message)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception:
        logging.getLogger("sidecar").exception("a defect ended hands")
        return EX_SOFTWARE


def _fail(status: int, problem: str) -> int:
    print(f"sidecar hands: {problem}", file=sys.stderr)
    return status


def _end_early_if_told() -> None:
    """Until signals are listened for; PID 1 would not even get them (kill(2), NOTES)."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, end)
