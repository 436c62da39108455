"""Where no further thread is to be had, work waits for one of those that there are."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest
from stack import until

import sidecar
from sidecar.durable.writer import Lane
from sidecar.threads import Crew, in_thread

PACKAGE = Path(sidecar.__path__[0])
ELSEWHERE = {"cli", "client", "hub"}  # those do not work in a sandbox


@contextmanager
def no_more_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As at the limit of a container, by what CPython says then (thread_PyThread_start_new_thread
    in Modules/_threadmodule.c). tests/containers/test_limits.py is about the real one."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        yield


async def test_a_call_waits_for_the_thread_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    await in_thread(int)  # from now on there is one thread
    began, go_on = threading.Event(), threading.Event()
    answers = []

    def occupy() -> str:
        began.set()
        go_on.wait(10)
        return "first"

    async def call(name: str) -> None:
        answers.append(await in_thread(occupy if name == "first" else lambda: name))

    with no_more_threads(monkeypatch):
        async with anyio.create_task_group() as group:
            group.start_soon(call, "first")
            await until(began.is_set)
            group.start_soon(call, "second")
            await anyio.wait_all_tasks_blocked()
            assert answers == []
            go_on.set()
    assert sorted(answers) == ["first", "second"]


async def test_other_errors_are_not_waited_out() -> None:
    def fail() -> None:
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        await in_thread(fail)


def test_a_crew_of_one_keeps_the_order() -> None:
    crew, done = Crew(1, "test"), []
    for number in range(100):
        last = crew.submit(done.append, number)
    last.result(10)
    assert done == list(range(100))


def test_a_crew_grows_to_its_size_and_not_beyond() -> None:
    crew, go_on = Crew(2, "growing"), threading.Event()
    jobs = [crew.submit(go_on.wait, 10) for _ in range(5)]
    threads = [one for one in threading.enumerate() if one.name.startswith("growing")]
    go_on.set()
    assert all(job.result(10) for job in jobs)
    assert len(threads) == 2


def test_what_idles_is_asked_before_another_is_started() -> None:
    crew = Crew(8, "idle")
    for _ in range(20):
        crew.submit(int).result(10)
        assert crew._idle.acquire(timeout=10)  # it is idle by now
        crew._idle.release()
    assert len([one for one in threading.enumerate() if one.name.startswith("idle")]) == 1


def test_a_crew_that_cannot_grow_works_on(monkeypatch: pytest.MonkeyPatch) -> None:
    crew, go_on = Crew(8, "test"), threading.Event()
    first = crew.submit(go_on.wait, 10)
    with no_more_threads(monkeypatch):
        second = crew.submit(threading.current_thread)
    go_on.set()
    assert first.result(10)
    assert second.result(10).name == "test-0"


def test_a_crew_without_a_thread_works_here_and_now(monkeypatch: pytest.MonkeyPatch) -> None:
    crew = Crew(8, "test")
    with no_more_threads(monkeypatch):
        assert crew.submit(threading.current_thread).result(0) is threading.current_thread()
        with pytest.raises(ZeroDivisionError):
            crew.submit(divmod, 1, 0).result(0)


async def test_a_log_gets_its_thread_late_rather_than_never(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lane, written = Lane("late"), []

    def write() -> None:
        pass

    with no_more_threads(monkeypatch):
        lane.request(lambda: lambda: written.append(1) or write)
        await anyio.sleep(0.02)
        assert written == []
    await until(lambda: written == [1])
    await lane.aclose()


def test_all_that_works_in_a_sandbox_has_this_patience() -> None:
    found = [
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if path.relative_to(PACKAGE).parts[0] not in ELSEWHERE
        and any(word in path.read_text() for word in ("to_thread.run", "ThreadPoolExecutor"))
    ]
    assert found == ["threads.py"], "use sidecar.threads: in_thread, or a Crew"
