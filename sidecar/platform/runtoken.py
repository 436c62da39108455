"""The run token in the state folder: replaced by each answer of the endpoint, before it is used.

It is a secret of a few minutes, in a file that is ours alone (0600). A new one is written beside
the old, synced, and renamed over it (rename(2) is atomic), so that at every moment there is one
whole run token on the disk. Killed before the rename, we come back with the previous one, which
the endpoint takes until the next is used; killed after it, with the next.

The first one comes from whoever started us. The file remembers which first one its own descends
from: if another first one is given, that is the newer word, and it is used.

The file also keeps what is final: a sidecar that was superseded must not ask again after a
restart, or two of them would supersede each other for ever.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from sidecar.errors import NoToken, SettingsError
from sidecar.platform.answers import check_run_token
from sidecar.threads import in_thread
from sidecar.tokens.private import write_private
from sidecar.tokens.watched import WatchedFile

FORMAT = 1
NAME = "run-token"

# What is raised for a file that holds anything at all, nested as deep as it likes.
_UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RecursionError,
    SettingsError,
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunToken:
    """`origin` is a digest of the first run token that this one descends from; `mark` is what the
    endpoint has said for good: "", "superseded" or "run_ended"."""

    value: str = field(repr=False)
    origin: str
    mark: str = ""
    is_first: bool = False


class RunTokenStore:
    """The run token of one endpoint. `first_file` is read again and again, and goes before
    `first`, which is the run token itself."""

    def __init__(self, folder: Path, *, first: str = "", first_file: Path | None = None) -> None:
        self._path = folder / NAME
        self._first = first
        self._first_file = None if first_file is None else WatchedFile(first_file)
        self._unwritten: RunToken | None = None
        self.complaint = ""

    async def current(self) -> RunToken:
        """The one to use next. Raises `NoToken` if there is none."""
        why = "no run token: set SIDECAR_RUN_TOKEN_FILE"
        first = ""
        try:
            text = self._first if self._first_file is None else await self._first_file.read()
            first = check_run_token(text)
        except SettingsError as error:
            why = f"run token: {error}"
        kept = self._unwritten or await in_thread(_read, self._path)
        if kept is not None and (not first or kept.origin == digest(first)):
            return kept
        if not first:
            raise NoToken(why)
        return RunToken(first, digest(first), is_first=True)

    async def keep(self, token: RunToken) -> None:
        """Write it, before it is used. A disk that fails costs the next restart, not this run."""
        try:
            await in_thread(write_private, self._path, _document(token))
            self._unwritten, self.complaint = None, ""
        except OSError as error:
            self._unwritten = token
            self.complaint = (
                f"the run token could not be written ({error.strerror}):"
                " after a restart we shall need a repoint"
            )
            _log.error("%s", self.complaint)

    async def changed(self) -> None:
        """Return when somebody has given another first run token."""
        if self._first_file is None:
            await anyio.sleep_forever()
        else:
            await self._first_file.changed()


def digest(token: str) -> str:
    """Tells first run tokens apart without showing them."""
    return hashlib.sha256(token.encode()).hexdigest()


def _document(token: RunToken) -> dict[str, object]:
    return {
        "format": FORMAT,
        "origin": token.origin,
        "run_token": token.value,
        "mark": token.mark,
    }


def _read(path: Path) -> RunToken | None:
    """What was kept. What cannot be read is told and not used: the first run token may do."""
    try:
        found = json.loads(path.read_text())
        if found["format"] > FORMAT:
            raise NoToken(
                f"{path} was written by a newer sidecar: run that one, or remove the file and"
                " give a new run token"
            )
        return RunToken(check_run_token(found["run_token"]), found["origin"], found["mark"])
    except FileNotFoundError:
        return None
    except _UNREADABLE as error:
        _log.warning("%s cannot be read (%s) and is not used", path, type(error).__name__)
        return None
