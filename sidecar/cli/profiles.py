"""Where the verbs find a `sidecar dev`: one small file for each that runs.

They lie in the runtime folder (`sidecar.runtimefolder`), as `<run>.json` with the socket
`<run>.sock` beside it. No id has a dot in it, so neither can be taken for the state folder of a
run, which may lie there too. The owner holds a lock (flock(2)) on its profile, so two on one
folder exclude each other whatever became of an earlier one.

No third-party imports: `sidecar health` starts with this.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from sidecar.errors import SettingsError
from sidecar.runtimefolder import SOCKET_PATH_BYTES, make_private, runtime_folder

SLUG = 24  # characters of a folder's name that go into its run id


@dataclass(frozen=True, slots=True)
class Profile:
    """One `sidecar dev`: what it serves, and where it hands out tokens."""

    run: str
    folder: str
    hub: str
    socket: str
    state: str
    pid: int


class AlreadyServed(SettingsError):
    """Another `sidecar dev` has this folder."""


def folder_of_profiles() -> Path:
    """The folder for profiles and sockets, made if needed. Raises `SettingsError`."""
    folder = runtime_folder()
    try:
        make_private(folder)
    except OSError as error:
        raise SettingsError(
            f"{folder}: {error.strerror}; set XDG_RUNTIME_DIR to a folder of ours"
        ) from None
    return folder


def run_id_of(folder: Path) -> str:
    """The run id of a folder: readable, and its own wherever else a folder has the same name."""
    real = os.path.realpath(folder)
    slug = re.sub(r"[^a-z0-9]+", "-", os.path.basename(real).lower())[:SLUG].strip("-")
    return f"{slug or 'dev'}-{hashlib.sha256(os.fsencode(real)).hexdigest()[:6]}"


class Claim:
    """A run that this process serves, from the lock until the profile is gone again."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.socket = path.with_suffix(".sock")
        self._fd = fd

    def publish(self, profile: Profile) -> None:
        """Let the verbs find it, once the socket answers."""
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, json.dumps(asdict(profile)).encode(), 0)


@contextmanager
def claim(run: str, folder: Path) -> Iterator[Claim]:
    """Hold the profile of `run`; raises `AlreadyServed` naming who has it."""
    path = folder_of_profiles() / f"{run}.json"
    claimed = Claim(path, _lock(path, folder))
    try:
        if len(os.fsencode(claimed.socket)) > SOCKET_PATH_BYTES:
            raise SettingsError(
                f"{claimed.socket} is longer than a socket's path may be"
                f" ({SOCKET_PATH_BYTES} bytes): set XDG_RUNTIME_DIR to a shorter one"
            )
        yield claimed
    finally:
        path.unlink(missing_ok=True)
        os.close(claimed._fd)


def _lock(path: Path, folder: Path) -> int:
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            owner = read(path)
            who = f"process {owner.pid}" if owner else "a process that is just starting"
            raise AlreadyServed(
                f"{folder} is served already, by `sidecar dev`, {who}:"
                " use that one, or end it first"
            ) from None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(fd), path.stat()):
                return fd
        os.close(fd)  # its owner removed the file while we opened it


def read(path: Path) -> Profile | None:
    """The profile in a file; None for what is none, or not one yet."""
    try:
        return Profile(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def live() -> list[Profile]:
    """Every `sidecar dev` of ours that runs. What one left behind that was killed is removed."""
    found = []
    for path in sorted(folder_of_profiles().glob("*.json")):
        profile = read(path)
        if profile is None:
            continue
        if answers(profile):
            found.append(profile)
        elif not _is_alive(profile.pid):
            path.unlink(missing_ok=True)
            Path(profile.socket).unlink(missing_ok=True)
    return found


def answers(profile: Profile) -> bool:
    """Whether somebody listens at its socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1.0)
        try:
            connection.connect(profile.socket)
        except OSError:
            return False
    return True


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def find(run: str | None = None, file: str | None = None) -> Profile:
    """The `sidecar dev` that is meant: by its profile file, by its run, as the only one, or as
    the one whose folder the current folder lies in. Raises `SettingsError` saying what to do."""
    if file:
        profile = read(Path(file))
        if profile is None or not answers(profile):
            raise SettingsError(f"{file} is not the profile of a `sidecar dev` that runs")
        return profile
    running = live()
    if run:
        for profile in running:
            if profile.run == run:
                return profile
        raise SettingsError(f"no `sidecar dev` serves run {run!r}. {_listing(running)}")
    if len(running) == 1:
        return running[0]
    if not running:
        raise SettingsError(_listing(running))
    here = os.path.realpath(os.getcwd())
    around = [p for p in running if os.path.commonpath([p.folder, here]) == p.folder]
    if around:
        return max(around, key=lambda profile: len(profile.folder))
    raise SettingsError(
        f"which one? Choose with --run ID, or go to its folder. {_listing(running)}"
    )


def _listing(running: list[Profile]) -> str:
    if not running:
        return (
            "No `sidecar dev` is running: start one with `sidecar dev`,"
            " or name a token file with --token-file"
        )
    lines = [f"  --run {p.run}  {p.folder}  (process {p.pid})" for p in running]
    return "\n".join(["Running:", *lines])
