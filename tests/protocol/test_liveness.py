from __future__ import annotations

from sidecar.protocol.liveness import Liveness


def test_a_ping_is_due_after_20_s_of_silence() -> None:
    liveness = Liveness(now=100.0)
    liveness.receive_frame(now=105.0)
    assert liveness.next_deadline() == 125.0
    liveness.handle_deadline(now=124.9)
    assert not liveness.ping_is_due
    liveness.handle_deadline(now=125.0)
    assert liveness.ping_is_due


def test_the_link_is_dead_after_30_s_of_silence() -> None:
    liveness = Liveness(now=0.0)
    liveness.handle_deadline(now=20.0)
    assert liveness.next_deadline() == 30.0
    liveness.handle_deadline(now=29.9)
    assert not liveness.is_dead
    liveness.handle_deadline(now=30.0)
    assert liveness.is_dead


def test_any_frame_after_the_ping_proves_life() -> None:
    liveness = Liveness(now=0.0)
    liveness.handle_deadline(now=20.0)
    liveness.receive_frame(now=29.0)
    liveness.handle_deadline(now=30.0)
    assert not liveness.is_dead
    assert liveness.next_deadline() == 49.0


def test_a_pong_measures_the_round_trip_once() -> None:
    liveness = Liveness(now=0.0)
    liveness.ask(now=1.0)
    liveness.receive_frame(now=1.25)
    assert liveness.receive_pong(now=1.25) == 0.25
    assert liveness.receive_pong(now=1.5) is None


def test_after_a_sleep_the_peer_gets_another_chance() -> None:
    liveness = Liveness(now=0.0)
    liveness.handle_deadline(now=20.0)
    liveness.ping_is_due = False
    liveness.handle_deadline(now=7200.0)  # the laptop was closed; what came is yet to be read
    assert not liveness.is_dead
    assert liveness.ping_is_due
    assert liveness.next_deadline() == 7210.0
