"""The flags of `sidecar run`, made from the fields of `Settings`, and read without click.

    --token-file PATH     or  --token-file=PATH
    --insecure            and --no-insecure, for what is yes or no

There is no flag for a secret: everybody on the machine may read a command line (proc(5),
/proc/PID/cmdline).
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import Field, fields
from typing import Any

from sidecar.cli.usage import BadUsage
from sidecar.settings import Settings, variable

SECRETS = ("token", "run_token")
WIDTH = 96


def parse_settings(arguments: Sequence[str]) -> dict[str, str]:
    """The settings that `arguments` give, by field name, unconverted. Raises `BadUsage`."""
    found: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        flag, equals, value = word.partition("=")
        name, is_off = _field_of(flag)
        if isinstance(_KNOBS[name].default, bool):
            if equals:
                raise BadUsage(f"{flag} takes no value: say {_flag(name)} or --no-{flag[2:]}")
            value = "no" if is_off else "yes"
        elif not equals:
            if not rest:
                raise BadUsage(f"{flag} needs a value")
            value = rest.pop(0)
        found[name] = value
    return found


def describe_flags() -> str:
    """Every setting with its flag, environment name, unit and default, for `--help`."""
    return "\n".join(_describe(knob) for knob in _KNOBS.values())


_KNOBS: dict[str, Field[Any]] = {item.name: item for item in fields(Settings)}


def _field_of(flag: str) -> tuple[str, bool]:
    """The field that `flag` sets, and whether it switches it off."""
    if not flag.startswith("--"):
        raise BadUsage(f"{flag!r} is out of place: `sidecar run` takes flags only")
    name = flag[2:].replace("-", "_")
    if name in SECRETS:
        raise BadUsage(
            f"there is no flag {flag}, because everybody may read a command line:"
            f" use {flag}-file, or set {variable(name)}"
        )
    if name in _KNOBS:
        return name, False
    positive = name.removeprefix("no_")
    if positive in _KNOBS and isinstance(_KNOBS[positive].default, bool):
        return positive, True
    raise BadUsage(f"there is no flag {flag}{_nearest(flag)}")


def _nearest(flag: str) -> str:
    import difflib  # only for those who misspell

    close = difflib.get_close_matches(
        flag, [_flag(name) for name in _KNOBS if name not in SECRETS], n=1
    )
    return f"; did you mean {close[0]}?" if close else ""


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _describe(knob: Field[Any]) -> str:
    default = knob.default
    if isinstance(default, bool):
        head = f"  {_flag(knob.name)}, --no-{knob.name}"
        shown = "yes" if default else "no"
    else:
        unit = knob.metadata["unit"]
        head = f"  {_flag(knob.name)} {unit or 'VALUE'}"
        shown = f"{default}{f' {unit}' if unit else ''}"
    if knob.name in SECRETS:
        head = "  (no flag)"
    notes = variable(knob.name) + (f", default {shown}" if default != "" else "")
    text = textwrap.wrap(f"{knob.metadata['help']} [{notes}]", WIDTH - 8)
    return "\n".join([head, *(f"        {line}" for line in text)])
