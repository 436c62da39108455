"""What the options of `sidecar exec` come to."""

from __future__ import annotations

from typing import Any

import click
import pytest

from sidecar.cli.order import Order, order
from sidecar.client import Limits

NOTHING: dict[str, Any] = {
    "shell": False,
    "cwd": None,
    "timeout": None,
    "idle_timeout": None,
    "env": (),
    "unset": (),
    "base": None,
    "limits": (),
}


def test_what_is_not_said_is_left_to_the_sidecar() -> None:
    assert order(("ls", "-l"), **NOTHING) == Order(["ls", "-l"], {})
    assert order(("ls | wc",), **NOTHING | {"shell": True}) == Order("ls | wc", {})


def test_what_is_said_is_passed_on() -> None:
    said = NOTHING | {
        "cwd": "sub",
        "idle_timeout": 2.5,
        "env": ("A=b=c", "EMPTY="),
        "unset": ("HOME", "PAGER"),
        "base": "clean",
        "limits": ("memory=2G", "cpu=60", "files=64"),
    }
    assert order(("true",), **said).options == {
        "cwd": "sub",
        "idle_timeout": 2.5,
        "env": {"A": "b=c", "EMPTY": ""},
        "unset": ["HOME", "PAGER"],
        "base": "clean",
        "limits": Limits(memory=2 << 30, cpu=60, files=64),
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"env": ("A",)},
        {"env": ("=b",)},
        {"limits": ("memory",)},
        {"limits": ("memory=-1",)},
        {"limits": ("memory=2X",)},
        {"limits": ("cpu=1k",)},
        {"limits": ("heat=1",)},
    ],
)
def test_what_makes_no_sense_is_refused(wrong) -> None:
    with pytest.raises(click.UsageError, match="expected$"):
        order(("true",), **NOTHING | wrong)


@pytest.mark.parametrize("wrong", [{"unset": ("\udcff",)}, {"env": ("A=\udcff",)}])
def test_variables_that_are_not_utf8_are_refused(wrong) -> None:
    with pytest.raises(click.UsageError, match="not UTF-8 cannot be passed$"):
        order(("true",), **NOTHING | wrong)
