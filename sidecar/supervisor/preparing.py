"""What can be said to be wrong before anything is started, and the folders that have to be there.

Each check is made as the user whom it concerns, in a child: who may read what follows from
groups, ACLs, mounts and the capabilities that were dropped, and only the kernel knows all of it.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial

from sidecar.supervisor.accounts import Account
from sidecar.supervisor.privileges import missing
from sidecar.supervisor.spawning import NotStarted, try_as

EX_NOPERM = 77
EX_CONFIG = 78

TOKENS = ("SIDECAR_TOKEN", "SIDECAR_RUN_TOKEN")
NEEDED = ("CAP_SETUID", "CAP_SETGID", "CAP_KILL")
_LEFT_BY_MKFS = ["lost+found"]  # of ext4, in the root of a volume


class CannotStart(Exception):
    """The sentence says what is wrong and how to mend it; `status` is of sysexits.h."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def refuse_tokens(own: Mapping[str, str]) -> None:
    """We are to hold none, and our environment would be the first place to look."""
    for name in TOKENS:
        if own.get(name):
            raise CannotStart(
                EX_CONFIG,
                f"{name} is set: put the token into a file that only core's user may read, and"
                f" name that in {name}_FILE",
            )


def check_users(core: Account, agent: Account) -> None:
    """They are two, and neither is root."""
    for account, flag in ((core, "--core-user"), (agent, "--agent-user")):
        if account.uid == 0:
            raise CannotStart(EX_CONFIG, f"{flag} is root, from whom nothing can be kept")
    if core.uid == agent.uid:
        raise CannotStart(
            EX_CONFIG, f"--core-user and --agent-user are both uid {core.uid}: name two users"
        )


def check_powers() -> None:
    """We may become other users, and signal them."""
    lacking = missing(*NEEDED)
    if os.geteuid() == 0 and not lacking:
        return
    who = f"uid {os.geteuid()}" + "".join(f", without {name}" for name in lacking)
    caps = " ".join(f"--cap-add={name.removeprefix('CAP_')}" for name in NEEDED)
    raise CannotStart(
        EX_NOPERM,
        f"we are {who}: this has to start as root and with {', '.join(NEEDED)}"
        f" (--user=0 {caps}); without root, start `sidecar run` and `sidecar hands` each in a"
        " container of its own",
    )


def prepare_socket_folder(folder: str, *, core: Account, agent: Account) -> None:
    """The agent's, for hands makes its socket there; core goes through it."""
    _make(folder, agent, 0o755)
    _demand(agent, folder, os.W_OK | os.X_OK, f"chown {agent.uid} {folder}, or set SIDECAR_HANDS")
    _demand(core, folder, os.X_OK, f"chmod o+x {folder}, or set SIDECAR_HANDS")


def prepare_state_folder(folder: str, *, core: Account) -> None:
    """Core's alone. An empty one of root's is a volume that was just made, and becomes core's."""
    if not _make(folder, core, 0o700) and _is_fresh(folder):
        _give(folder, core, 0o700)


def check_token_files(own: Mapping[str, str], *, core: Account, agent: Account) -> None:
    """Core may read them, if they are there already, and the agent may not."""
    for name in (f"{token}_FILE" for token in TOKENS):
        path = own.get(name)
        if not path:
            continue
        mend = f"chown {core.uid} {path} && chmod 0400 {path} (in a pod: defaultMode: 0400)"
        number = _try_as(core, partial(_read, path))
        if number in (errno.EACCES, errno.EPERM):
            raise CannotStart(
                EX_NOPERM, f"{name}: core, uid {core.uid}, may not read {path}: {mend}"
            )
        if _try_as(agent, partial(_read, path)) == 0:
            raise CannotStart(
                EX_NOPERM, f"{name}: the agent, uid {agent.uid}, may read {path}: {mend}"
            )


def check_our_files(agent: Account) -> None:
    """What we and core run is not for the agent to write."""
    package = os.path.dirname(os.path.dirname(__file__))
    for path in (sys.executable, package, os.path.dirname(package)):
        if _try_as(agent, partial(_require, path, os.W_OK)) == 0:
            raise CannotStart(
                EX_NOPERM,
                f"the agent, uid {agent.uid}, may write {path}, which core runs: chown -R 0 {path}",
            )


def _make(folder: str, owner: Account, mode: int) -> bool:
    """Whether it was made; no if it was there."""
    try:
        os.makedirs(os.path.dirname(folder) or ".", mode=0o755, exist_ok=True)
        os.mkdir(folder, 0o700)
    except FileExistsError:
        return False
    except OSError as error:
        raise CannotStart(
            EX_NOPERM, f"{folder} cannot be made: {error.strerror}; mount a volume or a tmpfs there"
        ) from None
    _give(folder, owner, mode)
    return True


def _is_fresh(folder: str) -> bool:
    try:
        return os.lstat(folder).st_uid == 0 and os.listdir(folder) in ([], _LEFT_BY_MKFS)
    except OSError:  # core will say what is the matter with it
        return False


def _give(folder: str, owner: Account, mode: int) -> None:
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchmod(fd, mode)  # first, as long as it is ours
            os.fchown(fd, owner.uid, owner.gid)
        finally:
            os.close(fd)
    except OSError as error:
        why = "CAP_CHOWN is missing" if missing("CAP_CHOWN") else error.strerror
        raise CannotStart(
            EX_NOPERM,
            f"{folder} cannot be given to uid {owner.uid}: {why}; add it, or mount a folder that"
            f" belongs to {owner.uid} there",
        ) from None


def _demand(account: Account, path: str, mode: int, mend: str) -> None:
    number = _try_as(account, partial(_require, path, mode))
    if number:
        raise CannotStart(EX_NOPERM, f"{path}: {os.strerror(number)} for uid {account.uid}: {mend}")


def _try_as(account: Account, attempt: Callable[[], object]) -> int:
    try:
        return try_as(account, attempt)
    except NotStarted as error:
        raise CannotStart(error.status, str(error)) from None


def _require(path: str, mode: int) -> None:
    """Raises `OSError` if we may not."""
    os.stat(path)
    if not os.access(path, mode):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _read(path: str) -> None:
    os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
