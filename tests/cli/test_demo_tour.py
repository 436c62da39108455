"""How the tour is put together, and what becomes of a step that cannot be taken."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from sidecar.cli.demo import NAMES, project, tour
from sidecar.cli.demo.report import Line, as_json, failures, first_problem
from sidecar.cli.demo.screen import Screen
from sidecar.cli.demo.tour import STEPS, Step, chosen, take_tour
from sidecar.client import CallError, Code


def test_the_names_of_the_lines_are_those_of_the_steps() -> None:
    assert list(NAMES) == [name for step in STEPS for name in step.names]


def test_all_steps_are_taken_unless_lines_are_named() -> None:
    assert chosen([]) == list(STEPS)


@pytest.mark.parametrize(
    "only, names",
    [
        (["files"], [("files",)]),
        (["live"], [("project",), ("tests", "live")]),
        (["events", "once"], [("recovery",), ("reconnect",), ("once",), ("events",)]),
    ],
)
def test_a_line_brings_the_steps_that_it_builds_on(
    only: list[str], names: list[tuple[str, ...]]
) -> None:
    assert [step.names for step in chosen(only)] == names


def test_the_first_check_that_does_not_hold_is_the_problem() -> None:
    assert first_problem((True, "one"), (False, "two"), (False, "three")) == "two"
    assert first_problem((True, "one")) is None


def test_a_report_has_a_sentence_for_each_failure() -> None:
    lines = [Line("files", "bytes unchanged", "in 1 MiB/s"), Line("once", "runs once", "2", "ran")]
    assert failures(lines) == ["once FAILED: ran"]
    assert as_json(lines, 1.26) == {
        "ok": False,
        "seconds": 1.3,
        "lines": [
            {
                "name": "files",
                "promise": "bytes unchanged",
                "figure": "in 1 MiB/s",
                "ok": True,
                "problem": None,
            },
            {"name": "once", "promise": "runs once", "figure": "2", "ok": False, "problem": "ran"},
        ],
    }


async def test_a_step_that_fails_or_hangs_fails_its_lines_and_the_tour_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: object) -> list[Line]:
        raise CallError(Code.LIMIT, "too much")

    async def hang(_: object) -> list[Line]:
        await anyio.sleep_forever()
        raise AssertionError

    async def hold(_: object) -> list[Line]:
        return [Line("c", "it holds", "1")]

    steps = (
        Step("One that fails", ("a1", "a2"), fail),
        Step("One that hangs", ("b",), hang),
        Step("One that holds", ("c",), hold),
    )
    monkeypatch.setattr(tour, "STEPS", steps)
    monkeypatch.setattr(tour, "STEP_TIME", 0.1)
    lines = await take_tour(tmp_path, Screen(), broken=None, only=())
    assert lines == [
        Line("a1", "one that fails", "not measured", "limit: too much"),
        Line("a2", "one that fails", "not measured", "limit: too much"),
        Line("b", "one that hangs", "not measured", "not done within 0.1 s"),
        Line("c", "it holds", "1"),
    ]


async def test_a_tour_that_takes_too_long_is_broken_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tour, "TOUR_TIME", 0.05)
    with pytest.raises(tour.DemoError, match="the demo was not done within 0.05 s"):
        await take_tour(tmp_path, Screen(), broken=None, only=())


def test_the_project_is_not_made_with_git_settings_of_the_user(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GIT_DIR", "/somewhere/else")
    environ = project._git_environment()
    assert "GIT_DIR" not in environ
    assert environ["GIT_CONFIG_GLOBAL"] == "/dev/null"
