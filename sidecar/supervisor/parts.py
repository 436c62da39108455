"""What is started: core, hands and the container's command, each with an environment of its own.

Core gets all of ours: its settings are in it, and proxies, and the trust store. Hands gets of our
settings what hands goes by, and no way to a token; the command gets none. Names that are only for
us go to nobody, for core takes a `SIDECAR_*` that it does not know for a misspelt one.

Our interpreter runs core as core's user, and code that is found where the agent may write would
be the agent's. So it looks for modules neither in the working directory nor in a home (-s, -P;
-I, if we were started so, ignores PYTHON* as well).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from sidecar.supervisor.accounts import Account
from sidecar.supervisor.supervision import Part

DEFAULT_STATE = "/var/lib/sidecar"
OURS = ("SIDECAR_CORE_USER", "SIDECAR_AGENT_USER", "SIDECAR_GRACE", "SIDECAR_NEW_PRIVILEGES")
FOR_HANDS = (
    "SIDECAR_WORKSPACE",
    "SIDECAR_ROOTS",
    "SIDECAR_ENVIRONMENT",
    "SIDECAR_CGROUP",
    "SIDECAR_LOG_LEVEL",
)
_PREFIX = "SIDECAR_"


class Program:
    """How one part is run. The command is `attended`: it has our standard input and output, and
    the terminal; the others have /dev/null and our standard error."""

    def __init__(
        self,
        argv: list[str],
        environment: Mapping[str, str],
        account: Account,
        *,
        attended: bool = False,
        new_privileges: bool = False,
    ) -> None:
        self.argv = argv
        self.environment = environment
        self.account = account
        self.attended = attended
        self.new_privileges = new_privileges


def programs_of(
    own: Mapping[str, str],
    *,
    core: Account,
    agent: Account,
    socket: str,
    command: list[str],
    new_privileges: bool,
) -> dict[Part, Program]:
    """All of them, in the order in which they are started; `own` is our environment."""
    hands_argv = [*interpreter(), "hands", "--socket", socket, "--core-uid", str(core.uid)]
    programs = {
        Part.HANDS: Program(
            hands_argv, hands_environment(own, agent), agent, new_privileges=new_privileges
        ),
        Part.CORE: Program([*interpreter(), "run"], core_environment(own, core, socket), core),
    }
    if command:
        programs[Part.COMMAND] = Program(
            command,
            command_environment(own, agent),
            agent,
            attended=True,
            new_privileges=new_privileges,
        )
    return programs


def interpreter() -> list[str]:
    """This very Python, and this very package."""
    return [sys.executable, "-I" if sys.flags.isolated else "-sP", "-m", "sidecar"]


def core_environment(own: Mapping[str, str], account: Account, socket: str) -> dict[str, str]:
    kept = {name: value for name, value in own.items() if name not in OURS}
    return {"SIDECAR_STATE": DEFAULT_STATE, **kept, "SIDECAR_HANDS": socket, **_login(account)}


def hands_environment(own: Mapping[str, str], account: Account) -> dict[str, str]:
    settings = {name: own[name] for name in FOR_HANDS if name in own}
    return command_environment(own, account) | settings


def command_environment(own: Mapping[str, str], account: Account) -> dict[str, str]:
    kept = {name: value for name, value in own.items() if not name.startswith(_PREFIX)}
    return kept | _login(account)


def _login(account: Account) -> dict[str, str]:
    """What root's HOME and USER become."""
    return {"HOME": account.home, "USER": account.name, "LOGNAME": account.name}
