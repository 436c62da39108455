"""What `sidecar exec` is told to run, and how: its options, as the client takes them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sidecar.cli.output import fail_usage, wire_path

if TYPE_CHECKING:
    from sidecar.client import Limits, Options

_F = TypeVar("_F", bound=Callable[..., Any])

SECONDS = click.FloatRange(0, min_open=True)
UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
LIMITS = ("memory", "processes", "files", "cpu")


@dataclass(frozen=True, slots=True)
class Order:
    """A program and how it is started."""

    program: list[str | bytes] | str
    options: Options

    @property
    def name(self) -> str | bytes:
        """What an error calls the program."""
        return self.program if isinstance(self.program, str) else self.program[0]


def program_options(verb: _F) -> _F:
    """Adds what says how to start a program; `order` makes an `Order` of it."""
    for option in (
        click.option(
            "--limit",
            "limits",
            multiple=True,
            metavar="NAME=N",
            help="Of each process: memory=2G, cpu=60 (seconds), files=N, processes=N.",
        ),
        click.option(
            "--base",
            type=click.Choice(["clean", "empty"]),
            help="Its environment is that of a fresh login, or empty, but for the above.",
        ),
        click.option("--unset", multiple=True, metavar="NAME", help="Unset this variable."),
        click.option("--env", multiple=True, metavar="NAME=VALUE", help="Set this variable."),
        click.option(
            "--idle-timeout",
            type=SECONDS,
            metavar="SECONDS",
            help="End it when it neither printed nor read anything for that long: status 124.",
        ),
        click.option(
            "--timeout", type=SECONDS, metavar="SECONDS", help="End it after that long: status 124."
        ),
        click.option("--cwd", metavar="DIR", help="Where to run it. Default: the workspace."),
        click.option("--shell", is_flag=True, help="CMD is a command line for /bin/sh."),
    ):
        verb = option(verb)
    return verb


def order(
    command: tuple[str, ...],
    *,
    shell: bool,
    cwd: str | None,
    timeout: float | None,
    idle_timeout: float | None,
    env: tuple[str, ...],
    unset: tuple[str, ...],
    base: str | None,
    limits: tuple[str, ...],
) -> Order:
    """What these options say. Raises `UsageError`."""
    options: dict[str, Any] = {
        "cwd": None if cwd is None else wire_path(cwd),
        "timeout": timeout,
        "idle_timeout": idle_timeout,
        "env": dict(_variable(item) for item in env) or None,
        "unset": [_name(item) for item in unset] or None,
        "base": base,
        "limits": _limits(limits),
    }
    said = {name: value for name, value in options.items() if value is not None}
    return Order(_program(command, shell), said)  # type: ignore[arg-type]


def _program(command: tuple[str, ...], shell: bool) -> list[str | bytes] | str:
    if not shell:
        return [wire_path(word) for word in command]
    line = wire_path(" ".join(command))
    return line if isinstance(line, str) else ["/bin/sh", "-c", line]


def _variable(item: str) -> tuple[str, str]:
    name, equals, value = item.partition("=")
    if not name or not equals:
        raise fail_usage(f"--env {item!r}: NAME=VALUE expected")
    if not isinstance(wire_path(item), str):
        raise fail_usage(f"--env {name}: a value that is not UTF-8 cannot be passed")
    return name, value


def _name(item: str) -> str:
    if not isinstance(wire_path(item), str):
        raise fail_usage(f"--unset {item}: a name that is not UTF-8 cannot be passed")
    return item


def _limits(items: tuple[str, ...]) -> Limits | None:
    from sidecar.client import Limits

    found: dict[str, int] = {}
    for item in items:
        name, _, value = item.partition("=")
        number = re.fullmatch(r"(\d+)([kmgt]?)", value.lower())
        if name not in LIMITS or number is None or (number[2] and name != "memory"):
            raise fail_usage(
                f"--limit {item!r}: memory=2G, cpu=60, files=N or processes=N expected"
            )
        found[name] = int(number[1]) * UNITS[number[2]]
    return Limits(**found) if found else None
