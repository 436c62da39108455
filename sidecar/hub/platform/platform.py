"""Runs and the secrets that open them: what the endpoint decides, without HTTP and files.

Every secret that is not accepted is refused alike, with `Unauthorized`: wrong, retired, expired,
unknown, of another run, or none at all. Each refusal costs the same: one lookup by id, one hash,
one comparison in constant time, one count.

Times: `now` on the hub's clock, which no calendar moves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sidecar.errors import LimitExceeded
from sidecar.hub.platform.attempts import Attempts, Strangers
from sidecar.hub.platform.run import Chain, Run, RunToken
from sidecar.hub.platform.secrets import NOBODY, Kept, Kind, id_of, is_same, keep, make

MAX_RUNS = 10_000
MAX_KEYS = 16
_KEYS = "."  # what attempts with an unknown platform key count on; no run has such an id


class Unauthorized(Exception):
    """The one answer to every secret that is not accepted."""


class TooManyAttempts(Exception):
    """The secret was not looked at; `wait` is seconds."""

    def __init__(self, wait: float) -> None:
        super().__init__(wait)
        self.wait = wait


class UnknownRun(Exception):
    """Nobody has started a run of that id."""


@dataclass(slots=True, eq=False)
class PlatformKey:
    """What is kept of a platform key, and who tried to guess it."""

    kept: Kept
    attempts: Attempts = field(default_factory=Attempts, repr=False)


@dataclass(frozen=True, slots=True)
class Bearer:
    """Who has shown a good run token."""

    run: Run
    chain: Chain
    token: RunToken = field(repr=False)


class Platform:
    """All runs of one hub. Run tokens live `run_token_life` seconds if nobody uses them."""

    def __init__(self, *, run_token_life: float) -> None:
        self.run_token_life = run_token_life
        self.keys: dict[str, PlatformKey] = {}
        self.runs: dict[str, Run] = {}
        self.changes = 0  # so far; what has been saved is told from what has not
        self._tokens: dict[str, Bearer] = {}
        self._strangers = Strangers()

    # platform keys

    def add_key(self) -> str:
        """A new platform key, shown this once."""
        if len(self.keys) >= MAX_KEYS:
            raise LimitExceeded("platform keys", size=len(self.keys) + 1, limit=MAX_KEYS)
        text, kept = make(Kind.PLATFORM_KEY)
        self.keys[kept.id] = PlatformKey(kept)
        self.changes += 1
        return text

    def adopt_key(self, text: str) -> bool:
        """Take a key that an earlier hub has made; False if it is none of ours."""
        kept = keep(text, Kind.PLATFORM_KEY)
        if kept is None:
            return False
        self.keys.setdefault(kept.id, PlatformKey(kept))
        self.changes += 1
        return True

    def retire_key(self, id: str) -> bool:
        """Refuse that key from now on; whether there was one."""
        self.changes += 1
        return self.keys.pop(id, None) is not None

    def check_key(self, text: str, *, now: float) -> str:
        """The id of a platform key. Raises `Unauthorized` or `TooManyAttempts`."""
        key = self.keys.get(id_of(text, Kind.PLATFORM_KEY))
        attempts = self._strangers.of(_KEYS, now=now) if key is None else key.attempts
        kept = NOBODY if key is None else key.kept
        _check(text, kept, attempts, lambda: key is not None, now=now)
        return kept.id

    # runs

    def mint(self, run_id: str, *, now: float) -> str:
        """A first run token, of a new run or of one there is. Raises `RunEnded`."""
        run = self.runs.get(run_id)
        if run is None:
            self._make_room()
            run = self.runs[run_id] = Run(run_id)
        text, token, retired = run.mint(expires_at=now + self.run_token_life)
        self._index(run, run.chains[-1], token, retired)
        return text

    def check_run_token(self, text: str, run_id: str, *, now: float) -> Bearer:
        """Whose run token it is. Raises `Unauthorized` or `TooManyAttempts`."""
        found = self._tokens.get(id_of(text, Kind.RUN_TOKEN))
        attempts = self._strangers.of(run_id, now=now) if found is None else found.token.attempts
        kept = NOBODY if found is None else found.token.kept

        def is_good() -> bool:
            return found is not None and found.run.id == run_id and now < found.token.expires_at

        _check(text, kept, attempts, is_good, now=now)
        assert found is not None
        return found

    def renew(self, bearer: Bearer, incarnation: str, *, now: float) -> str:
        """The next run token. Raises `Superseded` or `RunEnded`."""
        run, chain = bearer.run, bearer.chain
        text, token, retired = run.renew(
            chain, bearer.token, incarnation, expires_at=now + self.run_token_life
        )
        self._index(run, chain, token, retired)
        return text

    def end(self, run_id: str) -> None:
        self.get(run_id).has_ended = True
        self.changes += 1

    def get(self, run_id: str) -> Run:
        run = self.runs.get(run_id)
        if run is None:
            raise UnknownRun(run_id)
        return run

    def restore(self, run: Run) -> None:
        """A run from a file."""
        self.runs[run.id] = run
        for chain in run.chains:
            for token in chain.tokens:
                self._tokens[token.kept.id] = Bearer(run, chain, token)

    def _index(self, run: Run, chain: Chain, token: RunToken, retired: list[RunToken]) -> None:
        self._tokens[token.kept.id] = Bearer(run, chain, token)
        for old in retired:
            self._tokens.pop(old.kept.id, None)
        self.changes += 1

    def _make_room(self) -> None:
        """For one more run, in place of the one that was started first of those that ended."""
        if len(self.runs) < MAX_RUNS:
            return
        ended = next((run for run in self.runs.values() if run.has_ended), None)
        if ended is None:
            raise LimitExceeded("runs", size=MAX_RUNS + 1, limit=MAX_RUNS)
        for chain in ended.chains:
            for token in chain.tokens:
                self._tokens.pop(token.kept.id, None)
        del self.runs[ended.id]


def _check(
    text: str, kept: Kept, attempts: Attempts, is_good: Callable[[], bool], *, now: float
) -> None:
    """Both conditions are always evaluated, and every failure counts."""
    wait = attempts.wait(now=now)
    if wait > 0.0:
        raise TooManyAttempts(wait)
    is_equal = is_same(text, kept)
    if not (is_equal & is_good()):
        attempts.fail(now=now)
        raise Unauthorized
