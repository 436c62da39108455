"""Which file may import which third-party package, and why.

A package that enters through one door can be replaced, hardened or loaded late in one place.
The table is kept true in both directions: an import that is not in it fails, and so does a door
that nobody uses any more.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

DOORS = {
    "anyio": (
        ["sidecar/**/*.py"],
        "structured concurrency is the house style; the contracts keep it out of what decides",
    ),
    "cbor2": (
        ["sidecar/protocol/envelope.py"],
        "bytes from outside are parsed in one place, with one set of limits, and only ever bytes",
    ),
    "pydantic": (
        [
            "sidecar/protocol/arguments.py",
            "sidecar/protocol/commands.py",
            "sidecar/protocol/filecommands.py",
        ],
        "checks what people and controllers write; too slow per chunk or event, and loaded late",
    ),
    "websockets": (
        ["sidecar/websocket.py"],
        "the channel is the only socket to the hub",
    ),
    "httpx": (
        ["sidecar/platform/client.py", "sidecar/cli/platformkey.py"],
        "the endpoint is asked in one place by each side; no redirects, certificates checked",
    ),
    "certifi": (
        ["sidecar/certificates.py"],
        "certificates where an image has none; what the image has goes first",
    ),
    "starlette": (["sidecar/hub/**/*.py"], "serves the embedded hub, in the extra `dev` only"),
    "uvicorn": (["sidecar/hub/**/*.py"], "serves the embedded hub, in the extra `dev` only"),
    "jwt": (["sidecar/hub/**/*.py"], "the hub mints and checks tokens, in the extra `dev` only"),
    "click": (["sidecar/cli/**/*.py"], "parses the verbs for people; `run` starts without it"),
    "rich": (["sidecar/cli/**/*.py"], "draws tables and progress for people"),
}


def third_party_imports(source: str) -> set[str]:
    """Top-level names of the packages that `source` imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    packages = {name.partition(".")[0] for name in names}
    return packages - sys.stdlib_module_names - {"sidecar"}


def doorways() -> Iterator[tuple[Path, str]]:
    for path in sorted(ROOT.glob("sidecar/**/*.py")):
        for package in sorted(third_party_imports(path.read_text())):
            yield path, package


DOORWAYS = list(doorways())  # parsed once: it is hundreds of files


def test_imports_are_found_wherever_they_stand() -> None:
    source = "import os, cbor2\ndef f():\n    from rich.table import Table\n    import sidecar.hub"
    assert third_party_imports(source) == {"cbor2", "rich"}


@pytest.mark.parametrize(
    "path, package", [pytest.param(*d, id=f"{d[0].relative_to(ROOT)}-{d[1]}") for d in DOORWAYS]
)
def test_every_import_goes_through_a_door(path: Path, package: str) -> None:
    assert package in DOORS, f"{package} has no door yet: say who may import it, and why"
    patterns, reason = DOORS[package]
    assert any(path in ROOT.glob(pattern) for pattern in patterns), f"{package}: {reason}"


@pytest.mark.parametrize(
    "package, pattern", [(package, p) for package, (patterns, _) in DOORS.items() for p in patterns]
)
def test_every_door_is_in_use(package: str, pattern: str) -> None:
    users = [path for path, used in DOORWAYS if used == package]
    assert set(users) & set(ROOT.glob(pattern)), "nobody imports it there: take it off the table"
