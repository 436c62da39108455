"""`sidecar info`: who the sidecar is, what it can do, and how it is."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from sidecar.cli.describe import describe
from sidecar.cli.output import show, show_json
from sidecar.cli.target import Target, on_run, target_options

if TYPE_CHECKING:
    from sidecar.client import Run


@click.command()
@click.option("--json", "as_json", is_flag=True, help="All of it, as one line of JSON.")
@target_options
def info(target: Target, as_json: bool) -> int:
    """Who the sidecar is, what it can do, and how it is.

    \b
    Examples:
      sidecar info
      sidecar info --json | jq .channel.round_trip

    Times are seconds, sizes bytes.
    """

    async def verb(run: Run) -> None:
        answer = await run.info()
        answer["incarnation"] = str(uuid.UUID(bytes=answer["incarnation"]))
        if as_json:
            show_json(answer)
            return
        lines = list(_lines(answer))
        width = max(len(name) for name, _ in lines)
        for name, text in lines:
            show(f"{name:<{width}}  {text}")

    return on_run(target, verb)


def _lines(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """What is nested as `outer.inner`; what is not set is left out."""
    for name, item in value.items():
        if isinstance(item, dict):
            yield from _lines(item, f"{prefix}{name}.")
        elif item is not None:
            yield f"{prefix}{name}", describe(item)
