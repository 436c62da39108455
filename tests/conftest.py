"""What holds for every test: one event loop, no blocking on it, no silent skips.

- Coroutine tests run on asyncio (the package depends on it below anyio: pidfds and descriptors
  are watched by `loop.add_reader`).
- A call that blocks while our code is on the stack of the event loop fails the test
  (blockbuster). Only `sidecar` is scanned: a test may block, so may a library on its own.
- With `SIDECAR_TEST_NO_SKIP=1` (set by `.ci/run` when `CI=true`) a skip is a failure, because a
  test that is skipped for want of an install has checked nothing. `@pytest.mark.optional` is
  for the few that need something no install can give, such as a kernel feature.
- With `--dist loadgroup` of pytest-xdist one worker has all of `tests/containers`, because it takes
  a minute to build the images, and each other file that is named in `TOGETHER`.
- `--hypothesis-profile=few` is for repetitions, as on other Pythons: a quarter of the examples,
  where a test does not say how many it needs.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from blockbuster import BlockBuster
from hypothesis import settings
from xdist.scheduler import LoadGroupScheduling

pytest_plugins = ["pytester"]  # tests/test_conftest.py runs pytest inside pytest

settings.register_profile("few", max_examples=25)

TOGETHER = ("tests/containers/", "tests/test_package.py")  # beginnings of node ids
NO_SKIP = os.environ.get("SIDECAR_TEST_NO_SKIP") == "1"


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The one backend; wide scope, so that fixtures of any scope may be coroutines."""
    return "asyncio"


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[None]:
    """For who makes a tree that is deeper than shutil.rmtree can go: it is gone afterwards, for
    pytest would fail to remove it, in a run to come."""
    yield
    subprocess.run(["rm", "-rf", tmp_path], check=True)


@pytest.fixture(scope="session", autouse=True)
def nothing_blocks_the_event_loop() -> Iterator[BlockBuster]:
    """Blocking calls of our code on the event loop raise `BlockingError`, in every test.

    Descriptors and sockets in non-blocking mode are left alone by blockbuster itself. Two
    exemptions: anyio looks at the path of a Unix socket before it binds, once; and a program's
    file is looked for just before it is run, which waits for the same directories (and for exec
    itself, 0.2 ms with vfork): less than a hop to a thread, so programs are spawned on the loop.
    """
    detector = BlockBuster(["sidecar"])
    detector.functions["os.stat"].can_block_in("/hands/local/spawn.py", {"_spawn"})
    detector.functions["os.stat"].can_block_in("/_sockets.py", {"setup_unix_local_socket"})
    detector.activate()
    yield detector
    detector.deactivate()


class Groups(LoadGroupScheduling):
    """By where a test lies: markers of xdist 3.8 have no effect with pytest 9.2, which no longer
    tells a changed node id to the controlling process."""

    def _split_scope(self, nodeid: str) -> str:
        return next((start for start in TOGETHER if nodeid.startswith(start)), nodeid)


@pytest.hookimpl(optionalhook=True)  # of a plugin that may be switched off
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Groups | None:
    return Groups(config, log) if config.getvalue("dist") == "loadgroup" else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    was_expected = hasattr(report, "wasxfail") or item.get_closest_marker("optional")
    if NO_SKIP and report.skipped and not was_expected:
        _fail(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A skip of a whole module (`importorskip` at its head) arises while collecting."""
    report = yield
    if NO_SKIP and report.skipped:
        _fail(report)
    return report


def _fail(report: pytest.TestReport | pytest.CollectReport) -> None:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
    report.outcome = "failed"
    report.longrepr = f"SIDECAR_TEST_NO_SKIP=1 allows no skips, yet: {reason}"
