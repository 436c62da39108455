"""The sidecar of this very sandbox: where its state lies, and one question at its local socket.

For verbs that are called when nothing else works, and every few seconds: no event loop.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sidecar.errors import SettingsError
from sidecar.settings import Settings

TIMEOUT = 5.0  # seconds for the whole answer
ANSWER_BYTES = 1024 * 1024
LOOKER_STEP = 0.05  # seconds between two tries


class Nobody(Exception):
    """There is no sidecar to ask; the sentence says where it was looked for."""


def find_state(state: str | None) -> Path:
    """The state folder: as said, that of SIDECAR_STATE or SIDECAR_RUN, or the `sidecar dev`'s.
    We are its owner from here on, if root may not go in otherwise. Raises `Nobody`."""
    named = state or os.environ.get("SIDECAR_STATE")
    run = os.environ.get("SIDECAR_RUN")
    if named or run:
        found = Settings(run=run or "", state=named or "").state_folder
        _become_owner(found)
        return found
    from sidecar.cli import profiles

    try:
        return Path(profiles.find().state)
    except SettingsError as error:
        raise Nobody(f"{error}, or name the state folder with --state") from None


def _become_owner(state: Path) -> None:
    """Root of a container that has only the capabilities that `sidecar supervise` needs may not
    look into what is core's, but may become core's user (capabilities(7), CAP_DAC_OVERRIDE)."""
    if os.geteuid() != 0 or os.access(state, os.R_OK | os.W_OK | os.X_OK):
        return
    with suppress(OSError):  # it is not there, or CAP_SETUID is missing, too: who asks will see
        owner = os.stat(state)
        os.setgroups([])
        os.setresgid(owner.st_gid, owner.st_gid, owner.st_gid)
        os.setresuid(owner.st_uid, owner.st_uid, owner.st_uid)


def ask_one(path: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    """The answer at one socket. Raises `OSError`, and `ValueError` for what is no answer."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(TIMEOUT)
        connection.connect(str(path))
        connection.sendall(json.dumps(request).encode() + b"\n")
        with connection.makefile("rb") as lines:
            answer = json.loads(lines.readline(ANSWER_BYTES) or b"{}")
    if not isinstance(answer, dict) or not answer:
        raise ValueError("the sidecar hung up")
    return answer


def read_note(state: Path) -> dict[str, Any]:
    """What `state.json` says (see `statefile`); nothing if there is none that can be read."""
    try:
        found = json.loads((state / "state.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def is_held(state: Path) -> bool:
    """Whether a sidecar lives that has this state folder (flock(2))."""
    try:
        fd = os.open(state / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


@contextmanager
def looking_at(state: Path) -> Iterator[None]:
    """Whoever removes the state folder when its sidecar has ended, waits until we have read how
    (see `wait_for_lookers`). The lock is on the folder itself (flock(2))."""
    try:
        fd = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:  # not there, or not ours to read: what is asked next says so
        yield
        return
    try:
        with suppress(OSError):  # being removed already, or a file system without locks
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield
    finally:
        os.close(fd)


def wait_for_lookers(state: Path, *, at_most: float = TIMEOUT) -> None:
    """Until nobody looks at the state folder any more, or `at_most` seconds have passed."""
    until = time.monotonic() + at_most
    with suppress(FileNotFoundError):
        fd = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            while time.monotonic() < until and _is_looked_at(fd):
                time.sleep(LOOKER_STEP)
        finally:
            os.close(fd)


def _is_looked_at(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    return False


def ask_health(state: Path) -> dict[str, Any]:
    """How it is, from `admin.sock`, and where that is not ours to ask, `agent.sock`. Raises
    `Nobody`."""
    refusals = []
    for name in ("admin.sock", "agent.sock"):
        try:
            answer = ask_one(state / name, {"op": "health"})
        except (OSError, ValueError) as error:
            refusals.append(getattr(error, "strerror", None) or str(error))
            continue
        if "error" not in answer:
            return answer
        refusals.append(answer.get("message", answer["error"]))
    raise Nobody(f"no sidecar answers in {state}: {refusals[0]}{_last_state(state)}")


def _last_state(state: Path) -> str:
    note = read_note(state)
    if not note:
        return ""
    teller = f", told by {note.get('told_by')}" if note.get("told_by") else ""
    return f"; run {note.get('run')} was {note.get('state')} since {note.get('since')}{teller}"
