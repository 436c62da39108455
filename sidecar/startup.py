"""What is known to be wrong before the first dial, and is no reason to end: it is said first.

A workspace that may only be read serves calls that read. A hands that is not there yet comes later,
which is how the containers of a pod start; until then calls that need it fail with `hands_away`.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator

from sidecar.access import owner_of, problem_of_writing
from sidecar.hands.rootlist import parse_roots
from sidecar.settings import Settings

_log = logging.getLogger(__name__)


def warn_of_problems(settings: Settings) -> None:
    """Blocks for as long as the file systems take."""
    for problem in problems_at_start(settings):
        _log.warning("%s", problem)


def problems_at_start(settings: Settings) -> Iterator[str]:
    """One sentence each."""
    if settings.hands:
        yield from _problems_of_hands(settings.hands)
        return
    yield from problems_of_workspace(settings.workspace, settings.roots)


def problems_of_workspace(workspace: str, roots: str) -> Iterator[str]:
    """Of folders that exist and may be read: what of them cannot be changed although it might."""
    writable = [root.path for root in parse_roots(roots) if root.writable]
    for what, path in [("workspace", workspace), *(("root", path) for path in writable)]:
        if problem := problem_of_writing(path):
            yield f"the {what} {path} cannot be changed, only read: {problem}"


def _problems_of_hands(path: str) -> Iterator[str]:
    """What can be told without connecting, which the hands itself would notice."""
    waiting = "it is waited for, and calls that need it fail meanwhile (hands_away)"
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        yield f"no hands at {path} yet: start `sidecar hands --socket {path}`; {waiting}"
    except OSError as error:
        yield f"hands at {path}: {error.strerror}: {owner_of(path)}; {waiting}"
    else:
        if not stat.S_ISSOCK(mode):
            yield f"hands at {path}: that is no socket; name the one of `sidecar hands`; {waiting}"
        elif not os.access(path, os.W_OK):
            yield (
                f"hands at {path} may not be dialled by us: {owner_of(path)};"
                f" give `sidecar hands` our uid, --core-uid {os.geteuid()}; {waiting}"
            )
