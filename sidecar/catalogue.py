"""The catalogue with its handlers, as dispatch wants it.

Loaded after the sidecar has said hello: pydantic alone takes longer to import than everything
that is needed to dial.
"""

from __future__ import annotations

from sidecar.context import Bound, Resumer
from sidecar.protocol.commands import CATALOGUE
from sidecar.services import about, ending, events, exec, files, shell

HANDLERS = {
    **about.HANDLERS,
    **ending.HANDLERS,
    **events.HANDLERS,
    **exec.HANDLERS,
    **files.HANDLERS,
    **shell.HANDLERS,
}
RESUMERS: dict[str, Resumer] = {**exec.RESUMERS, **files.RESUMERS, **shell.RESUMERS}


def bound_commands() -> dict[str, Bound]:
    """Every command of the catalogue, each with exactly one handler."""
    return {
        name: Bound(name, command.effect, command.parse, HANDLERS[name], RESUMERS.get(name))
        for name, command in CATALOGUE.items()
    }
