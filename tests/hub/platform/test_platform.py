"""Who is let in, who is kept out, and what it costs to try."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest

from sidecar.errors import LimitExceeded
from sidecar.hub.platform import platform as module
from sidecar.hub.platform.platform import (
    MAX_KEYS,
    Platform,
    TooManyAttempts,
    Unauthorized,
)
from sidecar.hub.platform.secrets import Kind, make

Try = Callable[[Platform, str, float], object]


@pytest.fixture
def platform() -> Platform:
    return Platform(run_token_life=3600.0)


def with_run_token(platform: Platform, text: str, now: float) -> object:
    return platform.check_run_token(text, "demo", now=now)


def with_key(platform: Platform, text: str, now: float) -> object:
    return platform.check_key(text, now=now)


def wrong(text: str) -> str:
    """The same id with another secret."""
    return text[:-1] + ("x" if text[-1] != "x" else "y")


@pytest.mark.parametrize("attempt", [with_run_token, with_key])
def test_six_wrong_secrets_of_an_id_close_it_for_the_rest_of_a_minute(
    platform: Platform, attempt: Try
) -> None:
    good = platform.add_key() if attempt is with_key else platform.mint("demo", now=0.0)
    for _ in range(6):
        with pytest.raises(Unauthorized):
            attempt(platform, wrong(good), 10.0)
    with pytest.raises(TooManyAttempts) as closed:
        attempt(platform, wrong(good), 20.0)
    assert closed.value.wait == 50.0
    with pytest.raises(TooManyAttempts):
        attempt(platform, good, 69.9)
    attempt(platform, good, 70.0)


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("attempt", [with_run_token, with_key])
def test_who_knows_no_id_locks_out_nobody(platform: Platform, attempt: Try, kind: Kind) -> None:
    good = platform.add_key() if attempt is with_key else platform.mint("demo", now=0.0)
    for _ in range(6):
        with pytest.raises(Unauthorized):
            attempt(platform, make(kind)[0], 10.0)
    with pytest.raises(TooManyAttempts):
        attempt(platform, make(kind)[0], 10.0)
    attempt(platform, good, 10.0)


def test_attempts_at_a_run_that_is_not_there_are_counted_alike(platform: Platform) -> None:
    for _ in range(6):
        with pytest.raises(Unauthorized):
            platform.check_run_token("", "no-such-run", now=0.0)
    with pytest.raises(TooManyAttempts):
        platform.check_run_token("", "no-such-run", now=0.0)
    with pytest.raises(Unauthorized):
        platform.check_run_token("", "another", now=0.0)


def test_every_refusal_hashes_and_compares_once(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, key = platform.mint("demo", now=0.0), platform.add_key()
    platform.mint("other", now=0.0)
    compared = []
    real = module.is_same
    monkeypatch.setattr(module, "is_same", lambda *of: compared.append(of) or real(*of))
    for text, run, now in (
        ("", "demo", 0.0),
        (wrong(token), "demo", 0.0),
        (token, "other", 0.0),
        (token, "demo", 3600.0),
        (token, "nobody", 0.0),
        (key, "demo", 0.0),
    ):
        compared.clear()
        with pytest.raises(Unauthorized):
            platform.check_run_token(text, run, now=now)
        assert len(compared) == 1
    for text in ("", wrong(key), token):
        compared.clear()
        with pytest.raises(Unauthorized):
            platform.check_key(text, now=0.0)
        assert len(compared) == 1


def test_keys_are_added_and_retired(platform: Platform) -> None:
    first, second = platform.add_key(), platform.add_key()
    assert platform.retire_key(platform.check_key(first, now=0.0))
    with pytest.raises(Unauthorized):
        platform.check_key(first, now=0.0)
    platform.check_key(second, now=0.0)
    with pytest.raises(LimitExceeded):
        for _ in range(MAX_KEYS):
            platform.add_key()


def test_a_key_of_an_earlier_hub_is_adopted_and_nothing_else(platform: Platform) -> None:
    key = Platform(run_token_life=3600.0).add_key()
    assert platform.adopt_key(key)
    platform.check_key(key, now=0.0)
    with pytest.raises(Unauthorized):
        platform.check_key(wrong(key), now=0.0)
    assert not platform.adopt_key("")
    assert not platform.adopt_key(platform.mint("demo", now=0.0))
    assert len(platform.keys) == 1


def test_memory_holds_no_secret(platform: Platform) -> None:
    key, token = platform.add_key(), platform.mint("demo", now=0.0)
    following = platform.renew(platform.check_run_token(token, "demo", now=0.0), "a", now=0.0)
    secrets = [text.split("_", 2)[2] for text in (key, token, following)]
    reached = reachable_from(platform)
    assert any(isinstance(one, bytes) and len(one) == 32 for one in reached), "hashes were found"
    for one in reached:
        if isinstance(one, str | bytes):
            text = one if isinstance(one, str) else one.decode("latin-1")
            assert not any(secret in text for secret in secrets)
        elif type(one).__module__.startswith("sidecar"):
            assert not any(secret in repr(one) for secret in secrets)


def reachable_from(root: object) -> list[object]:
    """All that `root` refers to, but no module, class or function."""
    seen: dict[int, object] = {}
    queue = [root]
    while queue:
        one = queue.pop()
        if id(one) in seen or callable(one) or type(one).__name__ == "module":
            continue
        seen[id(one)] = one
        queue.extend(gc.get_referents(one))
    return list(seen.values())


def test_a_platform_that_is_full_makes_room_of_runs_that_have_ended(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_RUNS", 2)
    ended = platform.mint("ended", now=0.0)
    platform.mint("going-on", now=0.0)
    with pytest.raises(LimitExceeded):
        platform.mint("third", now=0.0)
    platform.end("ended")
    platform.mint("third", now=0.0)
    assert set(platform.runs) == {"going-on", "third"}
    with pytest.raises(Unauthorized):
        platform.check_run_token(ended, "ended", now=0.0)
