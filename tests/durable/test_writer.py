"""The lanes of the writer: rounds that gather, and those that somebody waits for."""

from __future__ import annotations

import threading
import time

import anyio
import anyio.lowlevel
import pytest

from sidecar.durable.writer import Finish, Lane, Work

LONG = 60.0  # seconds that no test takes


class Job:
    """Something that is due until it was done; `done` counts."""

    def __init__(self) -> None:
        self.done = 0
        self.finished = anyio.Event()
        self.may_end = threading.Event()
        self.may_end.set()

    def take(self) -> Work:
        return self._do

    def _do(self) -> Finish:
        self.may_end.wait(5.0)
        self.done += 1
        return self.finished.set


async def test_a_lane_with_a_delay_gathers_before_its_round() -> None:
    lane, job = Lane("test", delay=0.05), Job()
    began = time.monotonic()
    lane.request(job.take)
    lane.request(job.take)
    await job.finished.wait()
    assert time.monotonic() - began >= 0.05
    assert job.done == 1
    await lane.aclose()


async def test_who_waits_hurries_a_round_that_gathers() -> None:
    lane, job = Lane("test", delay=LONG), Job()
    lane.request(job.take)
    lane.hurry()
    with anyio.fail_after(5):
        await job.finished.wait()
    await lane.aclose()


async def test_a_request_that_came_during_a_round_is_hurried_too() -> None:
    lane, first, second = Lane("test", delay=LONG), Job(), Job()
    first.may_end.clear()
    lane.request(first.take)
    lane.hurry()
    lane.request(second.take)
    lane.hurry()
    first.may_end.set()
    with anyio.fail_after(5):
        await second.finished.wait()
    await lane.aclose()


async def test_hurrying_without_a_request_does_not_hurry_the_next_one() -> None:
    lane, job = Lane("test", delay=0.05), Job()
    lane.hurry()
    began = time.monotonic()
    lane.request(job.take)
    await job.finished.wait()
    assert time.monotonic() - began >= 0.05
    await lane.aclose()


async def test_a_lane_that_closes_does_what_it_still_gathers() -> None:
    lane, first, second = Lane("test", delay=LONG), Job(), Job()
    first.may_end.clear()
    lane.request(first.take)
    lane.hurry()
    lane.request(second.take)
    async with anyio.create_task_group() as group:
        group.start_soon(lane.aclose)
        await anyio.lowlevel.checkpoint()
        first.may_end.set()
    assert (first.done, second.done) == (1, 1)


async def test_a_log_that_fails_in_the_event_loop_stops_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    lane, job = Lane("test"), Job()

    def fail() -> Finish:
        raise AssertionError("a defect")

    lane.request(lambda: lambda: fail)
    lane.request(job.take)
    with anyio.fail_after(5):
        await job.finished.wait()
    lane.request(job.take)
    await lane.aclose()
    assert job.done == 2
    assert "a log's work failed" in caplog.text
