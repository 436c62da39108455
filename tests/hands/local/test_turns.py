from __future__ import annotations

import threading
import time

from sidecar.hands.local.turns import Turns


def test_one_thread_at_a_time_holds_a_key() -> None:
    turns, inside, most = Turns(), 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(20):
            with turns.hold("key"):
                inside += 1
                most = max(most, inside)
                time.sleep(0)  # lets others try
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert turns._turns == {}


def test_other_keys_do_not_wait() -> None:
    turns = Turns()
    with turns.hold("a"), turns.hold("b"):
        assert len(turns._turns) == 2
    assert turns._turns == {}
