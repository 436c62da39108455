"""Chains of run tokens, generations, and who is superseded."""

from __future__ import annotations

import pytest

from sidecar.hub.platform.platform import Platform, Unauthorized
from sidecar.hub.platform.run import CHAINS, OFFERS, RunEnded, Superseded


class Endpoint:
    """A platform with one run."""

    def __init__(self) -> None:
        self.platform = Platform(run_token_life=3600.0)

    def mint(self) -> str:
        return self.platform.mint("demo", now=0.0)

    def renew(self, token: str, incarnation: str = "a", *, now: float = 0.0) -> str:
        bearer = self.platform.check_run_token(token, "demo", now=now)
        return self.platform.renew(bearer, incarnation, now=now)

    def accepts(self, token: str, *, now: float = 0.0) -> bool:
        try:
            self.platform.check_run_token(token, "demo", now=now)
        except Unauthorized:
            return False
        return True

    @property
    def generation(self) -> int:
        return self.platform.get("demo").generation


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint()


def test_each_token_is_good_until_the_next_one_is_used(endpoint: Endpoint) -> None:
    first = endpoint.mint()
    second = endpoint.renew(first)
    assert endpoint.accepts(first)
    third = endpoint.renew(second)
    assert not endpoint.accepts(first)
    assert endpoint.accepts(second)
    assert endpoint.accepts(third)


def test_an_answer_that_was_lost_is_asked_for_again(endpoint: Endpoint) -> None:
    first = endpoint.mint()
    lost = endpoint.renew(first)
    second = endpoint.renew(first)
    assert endpoint.generation == 1
    endpoint.renew(second)
    assert not endpoint.accepts(lost)
    assert not endpoint.accepts(first)


def test_an_answer_that_came_late_is_as_good_as_the_one_that_overtook_it(
    endpoint: Endpoint,
) -> None:
    first = endpoint.mint()
    late, other = endpoint.renew(first), endpoint.renew(first)
    following = endpoint.renew(late)
    assert not endpoint.accepts(other)
    assert endpoint.accepts(following)


def test_of_many_lost_answers_the_latest_are_good(endpoint: Endpoint) -> None:
    first = endpoint.mint()
    lost = [endpoint.renew(first) for _ in range(OFFERS + 1)]
    assert [endpoint.accepts(token) for token in lost] == [False] + [True] * OFFERS


def test_a_token_that_nobody_uses_lapses(endpoint: Endpoint) -> None:
    first = endpoint.mint()
    assert endpoint.accepts(first, now=3599.0)
    assert not endpoint.accepts(first, now=3600.0)


def test_a_token_opens_no_other_run(endpoint: Endpoint) -> None:
    token = endpoint.mint()
    endpoint.platform.mint("other", now=0.0)
    with pytest.raises(Unauthorized):
        endpoint.platform.check_run_token(token, "other", now=0.0)


def test_the_first_request_of_an_incarnation_raises_the_generation_and_others_do_not(
    endpoint: Endpoint,
) -> None:
    token = endpoint.mint()
    generations = []
    for incarnation in ("a", "a", "b", "b", "c"):
        token = endpoint.renew(token, incarnation)
        generations.append(endpoint.generation)
    assert generations == [1, 1, 2, 2, 3]


def test_what_was_superseded_stays_so(endpoint: Endpoint) -> None:
    old, new = endpoint.mint(), endpoint.mint()
    old = endpoint.renew(old, "a")
    new = endpoint.renew(new, "b")
    for _ in range(3):
        with pytest.raises(Superseded):
            endpoint.renew(old, "a")
        new = endpoint.renew(new, "b")
    assert endpoint.generation == 2
    newer = endpoint.renew(new, "c")
    for token, incarnation in ((old, "a"), (newer, "b")):
        with pytest.raises(Superseded):
            endpoint.renew(token, incarnation)
    assert endpoint.generation == 3


def test_who_is_superseded_keeps_a_token_with_which_to_be_told_so(endpoint: Endpoint) -> None:
    old = endpoint.renew(endpoint.mint(), "a")
    endpoint.renew(endpoint.mint(), "b")
    with pytest.raises(Superseded):
        endpoint.renew(old, "a")
    assert endpoint.accepts(old)


def test_a_chain_that_was_minted_later_brings_back_who_was_superseded(endpoint: Endpoint) -> None:
    endpoint.renew(endpoint.mint(), "a")
    other = endpoint.renew(endpoint.mint(), "b")
    endpoint.renew(endpoint.mint(), "a")
    assert endpoint.generation == 3
    with pytest.raises(Superseded):
        endpoint.renew(other, "b")


def test_a_run_that_has_ended_gets_nothing(endpoint: Endpoint) -> None:
    token = endpoint.renew(endpoint.mint())
    endpoint.platform.end("demo")
    with pytest.raises(RunEnded):
        endpoint.renew(token)
    with pytest.raises(RunEnded):
        endpoint.mint()


def test_too_many_mintings_retire_the_oldest_chain_but_not_the_one_in_use(
    endpoint: Endpoint,
) -> None:
    in_use = endpoint.renew(endpoint.mint())
    others = [endpoint.mint() for _ in range(CHAINS)]
    assert endpoint.accepts(in_use)
    assert [endpoint.accepts(token) for token in others] == [False] + [True] * (CHAINS - 1)
