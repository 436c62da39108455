"""What has no known sender: counted, and answered at a rate of each scope's own."""

from __future__ import annotations

import logging

import pytest

from sidecar.protocol.names import Scope
from sidecar.strangers import Strangers


class Hellos:
    def __init__(self) -> None:
        self.count = 0
        self.strangers = Strangers(self._say, now=0.0)

    def _say(self) -> None:
        self.count += 1

    def drop(self, now: float, scope: Scope = Scope.FULL) -> int:
        self.strangers.drop("broken", "a message", scope, now=now)
        return self.count


def test_a_stranger_is_answered_by_hello_at_most_once_a_second() -> None:
    hellos = Hellos()
    assert [hellos.drop(10.0), hellos.drop(10.5), hellos.drop(10.9), hellos.drop(11.0)] == [
        1,
        1,
        1,
        2,
    ]
    assert hellos.strangers.dropped == {"broken": 4}


def test_who_may_only_watch_moves_everybody_at_most_every_30_seconds() -> None:
    hellos = Hellos()
    assert hellos.drop(10.0, Scope.WATCH) == 1
    assert hellos.drop(39.9, Scope.WATCH) == 1
    assert hellos.drop(40.0, Scope.WATCH) == 2
    assert hellos.drop(41.0, Scope.FULL) == 3


def test_a_new_connection_says_hello_whenever_it_comes() -> None:
    hellos = Hellos()
    hellos.strangers.say_hello(now=10.0)
    hellos.strangers.say_hello(now=10.1)
    assert hellos.count == 2
    assert hellos.drop(10.2) == 2


def test_the_log_gets_one_line_a_second_with_the_count(caplog: pytest.LogCaptureFixture) -> None:
    hellos = Hellos()
    with caplog.at_level(logging.WARNING):
        for step in range(150):
            hellos.drop(10.0 + step / 100)
    assert [record.getMessage() for record in caplog.records] == [
        "dropped a message (1 so far)",
        "dropped a message (101 so far)",
    ]


def test_watchers_that_ask_to_attach_for_ever_take_no_answer_from_others() -> None:
    strangers = Strangers(lambda: None, now=0.0)
    answered = sum(strangers.may_answer(Scope.WATCH, now=0.0) for _ in range(1000))
    assert answered == 60
    assert strangers.dropped == {"attach": 940}
    assert strangers.may_answer(Scope.FULL, now=0.0)
    assert sum(strangers.may_answer(Scope.WATCH, now=1.0) for _ in range(1000)) == 20
