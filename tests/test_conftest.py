"""The rules of conftest.py, tried on code that breaks them."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from blockbuster import BlockingError

import sidecar

CONFTEST = Path(__file__).with_name("conftest.py")


def as_sidecar_code(source: str, file: str = "example.py") -> SimpleNamespace:
    """`source` compiled as if it stood in the package: blockbuster looks at file names."""
    names: dict[str, object] = {}
    exec(compile(source, f"{sidecar.__path__[0]}/{file}", "exec"), names)
    return SimpleNamespace(**names)


READ = as_sidecar_code("import os\ndef read(fd): return os.read(fd, 10)")
SLEEP = as_sidecar_code("import time\ndef sleep(): time.sleep(0)")
LOOK = "import os\ndef _spawn(): return os.stat('/')"


async def test_our_code_must_not_sleep_on_the_event_loop() -> None:
    with pytest.raises(BlockingError):
        SLEEP.sleep()


def test_our_code_may_sleep_off_the_event_loop() -> None:
    SLEEP.sleep()


async def test_our_code_must_not_read_a_blocking_descriptor_on_the_event_loop() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"hello")
    with pytest.raises(BlockingError):
        READ.read(reader)
    os.close(reader)
    os.close(writer)


async def test_our_code_may_read_a_non_blocking_descriptor_on_the_event_loop() -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.write(writer, b"hello")
    assert READ.read(reader) == b"hello"
    os.close(reader)
    os.close(writer)


async def test_only_what_spawns_may_look_for_a_file_on_the_event_loop() -> None:
    assert as_sidecar_code(LOOK, "hands/local/spawn.py")._spawn().st_ino
    with pytest.raises(BlockingError):
        as_sidecar_code(LOOK)._spawn()


async def test_tests_may_block_the_event_loop() -> None:
    assert os.listdir(CONFTEST.parent)


SKIPS = """
    import pytest

    def test_skipped():
        pytest.skip("no such thing here")

    @pytest.mark.optional
    def test_optional():
        pytest.skip("no such kernel here")

    @pytest.mark.xfail
    def test_expected_to_fail():
        assert False
"""


def run_inner(pytester: pytest.Pytester, source: str) -> dict[str, int]:
    pytester.makeconftest(CONFTEST.read_text())
    pytester.makeini("[pytest]\nmarkers = optional: may be skipped\n")
    pytester.makepyfile(source)
    return pytester.runpytest_subprocess().parseoutcomes()


def test_a_skip_fails_where_nothing_may_be_skipped(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIDECAR_TEST_NO_SKIP", "1")
    assert run_inner(pytester, SKIPS) == {"failed": 1, "skipped": 1, "xfailed": 1}


@pytest.mark.slow
def test_a_skip_is_a_skip_elsewhere(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SIDECAR_TEST_NO_SKIP", raising=False)
    assert run_inner(pytester, SKIPS) == {"skipped": 2, "xfailed": 1}


@pytest.mark.slow
def test_a_module_skipped_while_collecting_fails_too(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIDECAR_TEST_NO_SKIP", "1")
    outcome = run_inner(pytester, "import pytest\npytest.importorskip('no_such_package')")
    assert outcome == {"errors": 1}
