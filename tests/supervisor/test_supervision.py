"""When parts are started again, and how everything ends: decisions alone."""

from __future__ import annotations

import signal

import pytest

from sidecar.supervisor.supervision import KILL_TIME, START, UNKNOWN, Part, Supervision

CORE, HANDS, COMMAND = Part.CORE, Part.HANDS, Part.COMMAND
TERM, INT, KILL = signal.SIGTERM, signal.SIGINT, signal.SIGKILL


def running(*parts: Part) -> Supervision:
    """Of core, hands and a command, if nothing is said; all of them run at 100."""
    supervision = Supervision(parts or (HANDS, CORE, COMMAND), grace=25.0)
    supervision.begin(now=100.0)
    supervision.actions()
    return supervision


def test_all_are_started_in_their_order() -> None:
    supervision = Supervision((HANDS, CORE, COMMAND), grace=25.0)
    supervision.begin(now=100.0)
    assert supervision.actions() == [(HANDS, START), (CORE, START), (COMMAND, START)]
    assert supervision.actions() == []
    assert supervision.next_deadline() is None


@pytest.mark.parametrize("part", [CORE, HANDS])
@pytest.mark.parametrize("status", [1, 70, 75, 69, 137, 143])
def test_what_crashes_is_started_again(part: Part, status: int) -> None:
    supervision = running()
    supervision.part_ended(part, status, now=103.0)
    assert supervision.actions() == []
    assert supervision.next_deadline() == pytest.approx(103.1)
    supervision.handle_deadline(now=103.05)
    assert supervision.actions() == []
    supervision.handle_deadline(now=103.1)
    assert supervision.actions() == [(part, START)]
    assert supervision.next_deadline() is None


def test_the_pause_doubles_up_to_five_seconds_and_is_short_again_after_a_minute() -> None:
    supervision = running()
    now, pauses = 100.0, []
    for _ in range(8):
        supervision.part_ended(CORE, 1, now=now)
        pause = supervision.pause_of(CORE, now=now)
        assert pause is not None
        pauses.append(round(pause, 3))
        now += pause
        supervision.handle_deadline(now=now)
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]

    supervision.part_ended(CORE, 1, now=now + 59.0)
    assert supervision.pause_of(CORE, now=now + 59.0) == pytest.approx(5.0)
    supervision.handle_deadline(now=now + 64.0)
    supervision.part_ended(CORE, 1, now=now + 124.0)
    assert supervision.pause_of(CORE, now=now + 124.0) == pytest.approx(0.1)


def test_core_and_hands_are_counted_apart() -> None:
    supervision = running()
    supervision.part_ended(CORE, 1, now=100.0)
    supervision.handle_deadline(now=100.1)
    supervision.part_ended(CORE, 1, now=100.2)
    supervision.part_ended(HANDS, 137, now=100.25)
    assert supervision.pause_of(CORE, now=100.25) == pytest.approx(0.15)
    assert supervision.pause_of(HANDS, now=100.25) == pytest.approx(0.1)
    assert supervision.next_deadline() == pytest.approx(100.35)


@pytest.mark.parametrize("status", [0, 2, 77, 78, 126, 127])
def test_a_core_that_would_end_the_same_way_ends_it_all(status: int) -> None:
    supervision = running()
    supervision.part_ended(CORE, status, now=101.0)
    assert supervision.actions() == [(COMMAND, TERM)]
    supervision.part_ended(COMMAND, 143, now=102.0)
    assert supervision.actions() == [(HANDS, TERM)]
    assert not supervision.is_over
    supervision.part_ended(HANDS, 0, now=102.1)
    assert supervision.is_over
    assert supervision.exit_status == status


def test_hands_that_was_told_to_end_by_the_agent_is_started_again() -> None:
    supervision = running()
    supervision.part_ended(HANDS, 0, now=101.0)
    assert supervision.pause_of(HANDS, now=101.0) == pytest.approx(0.1)


@pytest.mark.parametrize("status", [2, 77, 78, 126, 127])
def test_hands_that_would_end_the_same_way_ends_it_all(status: int) -> None:
    supervision = running()
    supervision.part_ended(HANDS, status, now=101.0)
    assert supervision.actions() == [(COMMAND, TERM), (CORE, TERM)]
    supervision.part_ended(COMMAND, 143, now=101.1)
    supervision.part_ended(CORE, 0, now=101.2)
    assert supervision.is_over
    assert supervision.exit_status == status


@pytest.mark.parametrize("status", [0, 7, 78, 137])
def test_the_command_ends_it_all_and_core_has_hands_while_it_drains(status: int) -> None:
    supervision = running()
    supervision.part_ended(COMMAND, status, now=101.0)
    assert supervision.actions() == [(CORE, TERM)]
    supervision.part_ended(CORE, 75, now=110.0)
    assert supervision.actions() == [(HANDS, TERM)]
    supervision.part_ended(HANDS, 0, now=110.1)
    assert supervision.is_over
    assert supervision.exit_status == status


@pytest.mark.parametrize("number", [TERM, INT])
def test_the_command_gets_the_very_signal_and_core_is_told_with_it(number: int) -> None:
    supervision = running()
    supervision.receive_signal(number, now=101.0)
    assert supervision.actions() == [(COMMAND, number), (CORE, TERM)]
    supervision.part_ended(CORE, 0, now=102.0)
    assert supervision.actions() == []
    supervision.part_ended(COMMAND, 42, now=103.0)
    assert supervision.actions() == [(HANDS, TERM)]
    supervision.part_ended(HANDS, 0, now=103.1)
    assert supervision.exit_status == 42


def test_without_a_command_cores_status_is_the_last_word() -> None:
    supervision = running(HANDS, CORE)
    supervision.receive_signal(TERM, now=101.0)
    assert supervision.actions() == [(CORE, TERM)]
    supervision.part_ended(CORE, 75, now=102.0)
    supervision.part_ended(HANDS, 0, now=102.1)
    assert supervision.is_over
    assert supervision.exit_status == 75


def test_nothing_is_started_again_while_it_ends() -> None:
    supervision = running()
    supervision.part_ended(HANDS, 137, now=100.0)
    supervision.receive_signal(TERM, now=100.05)
    supervision.part_ended(CORE, 137, now=100.06)
    supervision.actions()
    supervision.handle_deadline(now=110.0)
    assert supervision.actions() == []
    supervision.part_ended(COMMAND, 143, now=110.1)
    assert supervision.is_over


def test_what_lives_after_the_grace_is_killed_once() -> None:
    supervision = running()
    supervision.receive_signal(TERM, now=101.0)
    supervision.part_ended(CORE, 0, now=102.0)
    supervision.actions()
    assert supervision.next_deadline() == 126.0
    supervision.handle_deadline(now=125.9)
    assert supervision.actions() == []
    supervision.handle_deadline(now=126.0)
    assert sorted(supervision.actions(), key=str) == [(COMMAND, KILL), (HANDS, KILL)]
    supervision.part_ended(COMMAND, 137, now=126.1)
    supervision.part_ended(HANDS, 137, now=126.1)
    assert supervision.is_over
    assert supervision.exit_status == 137


def test_a_second_signal_kills() -> None:
    supervision = running()
    supervision.receive_signal(TERM, now=101.0)
    supervision.actions()
    supervision.receive_signal(INT, now=101.5)
    assert sorted(supervision.actions(), key=str) == [(COMMAND, KILL), (CORE, KILL), (HANDS, KILL)]
    supervision.receive_signal(TERM, now=101.6)
    assert supervision.actions() == []


def test_the_first_signal_to_what_ends_already_does_not_kill() -> None:
    supervision = running()
    supervision.part_ended(COMMAND, 0, now=101.0)
    assert supervision.actions() == [(CORE, TERM)]
    supervision.receive_signal(TERM, now=101.5)
    assert supervision.actions() == []
    assert supervision.next_deadline() == 126.0
    supervision.receive_signal(TERM, now=101.6)
    assert (CORE, KILL) in supervision.actions()


def test_what_even_a_kill_does_not_end_is_given_up_and_no_status_is_made_up() -> None:
    supervision = running()
    supervision.receive_signal(TERM, now=101.0)
    supervision.handle_deadline(now=126.0)
    assert supervision.next_deadline() == 126.0 + KILL_TIME
    supervision.handle_deadline(now=126.0 + KILL_TIME)
    assert supervision.is_over
    assert supervision.exit_status == UNKNOWN


def test_other_signals_are_the_commands_as_long_as_it_lives() -> None:
    supervision = running()
    supervision.receive_signal(signal.SIGHUP, now=101.0)
    supervision.receive_signal(signal.SIGUSR1, now=101.0)
    assert supervision.actions() == [(COMMAND, signal.SIGHUP), (COMMAND, signal.SIGUSR1)]
    supervision.receive_signal(TERM, now=101.0)
    supervision.actions()
    supervision.receive_signal(signal.SIGUSR2, now=101.0)
    assert supervision.actions() == [(COMMAND, signal.SIGUSR2)]
    supervision.part_ended(COMMAND, 0, now=101.0)
    supervision.receive_signal(signal.SIGUSR2, now=101.0)
    assert supervision.actions() == []


def test_a_command_that_cannot_be_started_ends_it_all() -> None:
    supervision = Supervision((HANDS, CORE, COMMAND), grace=25.0)
    supervision.begin(now=100.0)
    supervision.actions()
    supervision.part_ended(COMMAND, 127, now=100.0)
    assert supervision.actions() == [(CORE, TERM)]
    supervision.part_ended(CORE, 143, now=100.1)
    supervision.part_ended(HANDS, 143, now=100.1)
    assert supervision.exit_status == 127
