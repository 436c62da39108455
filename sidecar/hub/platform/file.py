"""The endpoint's state in a file, so that a hub that is started again goes on.

It holds hashes, ids and counts, and no secret; mode 0600 all the same. It is replaced as a whole
and synced before an answer goes out, for a run token that a sidecar has written down must be
known after a power cut. That costs some milliseconds a request, which come minutes apart.

Expiry is written as a time of the calendar, because the hub's own clock ends with the machine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from sidecar.clock import Clock
from sidecar.errors import SettingsError
from sidecar.hub.platform.platform import Platform, PlatformKey
from sidecar.hub.platform.run import Chain, Run, RunToken
from sidecar.hub.platform.secrets import DIGEST_BYTES, Kept
from sidecar.tokens.private import write_private

FORMAT = 1


class PlatformFile:
    """One file for one `Platform`."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._saved = 0  # of the platform's changes
        self._turn = anyio.Lock()

    def load(self, platform: Platform) -> None:
        """Fill `platform`, unless there is no file yet. Raises `SettingsError`. It blocks."""
        try:
            found = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return
        except OSError as error:
            raise SettingsError(f"platform state {self._path}: {error.strerror}") from None
        except ValueError:
            found = None
        version = found.get("format") if isinstance(found, dict) else None
        if version != FORMAT:
            raise SettingsError(
                f"platform state {self._path}: not of format {FORMAT}, which is the one that we"
                " write; name another file, or remove this one and start the runs anew"
            )
        try:
            self._restore(platform, found)
        except (KeyError, TypeError, ValueError) as error:
            raise SettingsError(f"platform state {self._path} is damaged: {error!r}") from None

    async def save(self, platform: Platform) -> None:
        """Return when all that has changed is on the disk. Raises `OSError`."""
        async with self._turn:
            changes = platform.changes
            if changes == self._saved:
                return  # whoever had the turn before saved ours as well
            state = self._state_of(platform)
            with anyio.CancelScope(shield=True):  # a half-done save would be done again at once
                await anyio.to_thread.run_sync(write_private, self._path, state)
            self._saved = changes

    @property
    def _to_calendar(self) -> float:
        """What to add to a time on the hub's clock."""
        return self._clock.wall() - self._clock.now()

    def _state_of(self, platform: Platform) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "keys": [_describe(key.kept) for key in platform.keys.values()],
            "runs": [_describe_run(run, self._to_calendar) for run in platform.runs.values()],
        }

    def _restore(self, platform: Platform, found: Mapping[str, Any]) -> None:
        for entry in found["keys"]:
            key = PlatformKey(_kept(entry))
            platform.keys[key.kept.id] = key
        for entry in found["runs"]:
            platform.restore(_run(entry, self._to_calendar))


def _describe(kept: Kept) -> dict[str, Any]:
    return {"id": kept.id, "sha256": kept.digest.hex()}


def _describe_token(token: RunToken, to_calendar: float) -> dict[str, Any]:
    return {**_describe(token.kept), "expires_at": token.expires_at + to_calendar}


def _describe_run(run: Run, to_calendar: float) -> dict[str, Any]:
    return {
        "id": run.id,
        "generation": run.generation,
        "incarnation": run.incarnation,
        "has_ended": run.has_ended,
        "mintings": run.mintings,
        "last_used": run.last_used,
        "superseded": run.superseded.copy(),
        "chains": [
            {
                "number": chain.number,
                "used": None if chain.used is None else _describe_token(chain.used, to_calendar),
                "offered": [_describe_token(token, to_calendar) for token in chain.offered],
            }
            for chain in run.chains
        ],
    }


def _kept(entry: Mapping[str, Any]) -> Kept:
    digest = bytes.fromhex(entry["sha256"])
    if len(digest) != DIGEST_BYTES:
        raise ValueError("a hash of another length")
    return Kept(entry["id"], digest)


def _token(entry: Mapping[str, Any], to_calendar: float) -> RunToken:
    return RunToken(_kept(entry), entry["expires_at"] - to_calendar)


def _run(entry: Mapping[str, Any], to_calendar: float) -> Run:
    run = Run(entry["id"])
    run.generation = entry["generation"]
    run.incarnation = entry["incarnation"]
    run.has_ended = entry["has_ended"]
    run.mintings = entry["mintings"]
    run.last_used = entry["last_used"]
    run.superseded = dict(entry["superseded"])
    for chain in entry["chains"]:
        used = None if chain["used"] is None else _token(chain["used"], to_calendar)
        offered = [_token(token, to_calendar) for token in chain["offered"]]
        run.chains.append(Chain(chain["number"], used, offered))
    return run
