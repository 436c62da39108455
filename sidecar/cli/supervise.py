"""`sidecar supervise`: the first process of an image that starts as root.

Parsed without click and without the settings of `run`, which would be most of its memory.

Exit status: that of the command after `--` (126 it cannot be run, 127 it is not there); if core
or hands ended for good before it, theirs; 2 for a command line that makes no sense, and from
sysexits(3) 77 for what we may not do, 78 for settings.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from sidecar.cli.usage import BadUsage
from sidecar.supervisor.accounts import UnknownUser, find_account
from sidecar.supervisor.parts import DEFAULT_STATE, programs_of
from sidecar.supervisor.preparing import (
    EX_CONFIG,
    CannotStart,
    check_our_files,
    check_powers,
    check_token_files,
    check_users,
    prepare_socket_folder,
    prepare_state_folder,
    refuse_tokens,
)
from sidecar.supervisor.supervisor import Supervisor

EX_USAGE = 2
DEFAULT_SOCKET = "/run/sidecar/hands.sock"
DEFAULT_CORE_USER = "10001"
DEFAULT_AGENT_USER = "10002"
DEFAULT_DRAIN = 20.0  # seconds, of `sidecar run`
HANDS_TIME = 5.0  # seconds that hands gets on top of that
LONGEST_GRACE = 2 * 86400.0  # seconds

HELP = """\
Usage: sidecar supervise [FLAGS] [-- COMMAND...]

The first process of an image that starts as root: it starts core (`sidecar run`) and hands
(`sidecar hands`) as two users, COMMAND as the second of them, starts again what crashes, reaps
what is orphaned, and ends as COMMAND ends. It holds no token. The kernel then keeps everything
that runs as the agent away from core's token, memory, journal and sockets.

Examples:
  ENTRYPOINT ["/opt/sidecar/bin/sidecar", "supervise", "--agent-user", "node", "--"]
  CMD ["npm", "start"]
        The image's own entry point moves behind --. USER must be root.
  SIDECAR_RUN=demo SIDECAR_TOKEN_FILE=/run/secrets/token sidecar supervise
        Without a command: until the run ends, or SIGTERM.
  docker run --user=0 --cap-drop=ALL --cap-add={SETUID,SETGID,KILL,CHOWN} --read-only ...
        CHOWN only if the folders of the socket and of the state have to be made.

Flags:
  --core-user NAME|UID[:GID]
        Whom core runs as. [SIDECAR_CORE_USER, default 10001]
  --agent-user NAME|UID[:GID]
        Whom hands, all programs and COMMAND run as, with the groups that /etc/group gives.
        [SIDECAR_AGENT_USER, default 10002]
  --socket PATH
        Where core and hands meet; its folder becomes the agent's. [SIDECAR_HANDS,
        default /run/sidecar/hands.sock]
  --grace SECONDS
        From SIGTERM to SIGKILL. [SIDECAR_GRACE, default 5 more than SIDECAR_DRAIN, which is 20]
  --new-privileges
        Let set-user-ID programs such as sudo work for the agent. Whoever becomes root by one
        can read core. [SIDECAR_NEW_PRIVILEGES=yes]

Everything else is a setting of `sidecar run` or `sidecar hands`, in the environment; see their
--help. The token is in a file that core's user may read and the agent's may not. The state is in
SIDECAR_STATE, by default /var/lib/sidecar. COMMAND has our standard files, and gets SIGHUP,
SIGQUIT, SIGUSR1, SIGUSR2 and SIGWINCH. SIGTERM and SIGINT end it, and core drains; a second one
kills. Works as PID 1, and behind an init.

Exit status: that of COMMAND (126 it cannot be run, 127 it is not there). That of core or hands
if they ended first and another start would not help: core 0, both 2, 77, 78. Ours: 77 we may not
do what we must, 78 settings, 2 bad command line.
"""


class Arguments:
    """The command line, over the environment."""

    def __init__(self) -> None:
        self.core_user = os.environ.get("SIDECAR_CORE_USER") or DEFAULT_CORE_USER
        self.agent_user = os.environ.get("SIDECAR_AGENT_USER") or DEFAULT_AGENT_USER
        self.socket = os.environ.get("SIDECAR_HANDS") or DEFAULT_SOCKET
        self.grace = os.environ.get("SIDECAR_GRACE") or ""
        self.new_privileges = os.environ.get("SIDECAR_NEW_PRIVILEGES", "").lower() in _YES
        self.command: list[str] = []


_YES = ("1", "true", "yes", "on")
# Flags of `run` that people try here, too.
_SETTINGS = ("run", "hub", "token_file", "endpoint", "state", "workspace", "roots", "log_level")
_WITH_VALUE = ("core_user", "agent_user", "socket", "grace")


def main(arguments: Sequence[str]) -> int:
    """The whole verb; `arguments` are those after `supervise`."""
    ours = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if "--help" in ours or "-h" in ours:
        print(HELP, end="")
        return 0
    try:
        parsed = parse(arguments)
        return prepare(parsed).run()
    except BadUsage as error:
        return _fail(EX_USAGE, f"{error} (see `sidecar supervise --help`)")
    except UnknownUser as error:
        return _fail(EX_CONFIG, str(error))
    except CannotStart as error:
        return _fail(error.status, str(error))


def parse(arguments: Sequence[str]) -> Arguments:
    """Raises `BadUsage`."""
    found = Arguments()
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--":
            found.command = rest
            break
        flag, equals, value = word.partition("=")
        name = flag[2:].replace("-", "_")
        if word == "--new-privileges":
            found.new_privileges = True
            continue
        if not flag.startswith("--") or name not in _WITH_VALUE:
            raise BadUsage(f"{flag!r} is out of place{_hint(flag, name)}")
        if not equals:
            if not rest:
                raise BadUsage(f"{flag} needs a value")
            value = rest.pop(0)
        setattr(found, name, value)
    return found


def _hint(flag: str, name: str) -> str:
    if not flag.startswith("-"):
        return "; a command goes after --"
    if name in _SETTINGS:
        return f": it is a setting, set SIDECAR_{name.upper()}"
    return ""


def prepare(parsed: Arguments) -> Supervisor:
    """All that can be said to be wrong is said here. Raises `CannotStart`, `UnknownUser`."""
    own = os.environ
    refuse_tokens(own)
    grace = _grace(parsed.grace, own.get("SIDECAR_DRAIN") or "")
    core, agent = find_account(parsed.core_user), find_account(parsed.agent_user)
    check_users(core, agent)
    check_powers()
    socket = os.path.abspath(parsed.socket)
    prepare_socket_folder(os.path.dirname(socket), core=core, agent=agent)
    prepare_state_folder(os.path.abspath(own.get("SIDECAR_STATE") or DEFAULT_STATE), core=core)
    check_token_files(own, core=core, agent=agent)
    check_our_files(agent)
    programs = programs_of(
        own,
        core=core,
        agent=agent,
        socket=socket,
        command=parsed.command,
        new_privileges=parsed.new_privileges,
    )
    return Supervisor(programs, grace=grace)


def _grace(text: str, drain: str) -> float:
    """Seconds. A drain that is none is for core to refuse."""
    if not text:
        return _seconds(drain, DEFAULT_DRAIN) + HANDS_TIME
    found = _seconds(text, -1.0)
    if found < 0:
        raise CannotStart(
            EX_CONFIG, f"--grace is {text!r}: seconds, 0 to {LONGEST_GRACE:.0f}, expected"
        )
    return found


def _seconds(text: str, otherwise: float) -> float:
    try:
        found = float(text)
    except ValueError:
        return otherwise
    return found if 0 <= found <= LONGEST_GRACE else otherwise


def _fail(status: int, problem: str) -> int:
    print(f"sidecar supervise: {problem}", file=sys.stderr)
    return status
