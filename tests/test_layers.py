"""What `sidecar run` really loads, and whether the import contracts are complete.

The contracts in pyproject.toml see every import statement of ours. They cannot see what third
parties load in turn; a fresh interpreter can.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import sidecar

PYPROJECT = tomllib.loads(Path(__file__).parent.with_name("pyproject.toml").read_text())

OURS = {
    "sidecar.hub": "a development server has no place in a sandbox",
    "sidecar.client": "the platform's half; the sandbox never calls itself",
}
AFTER_HELLO = {
    "sidecar.serving": "the half that serves calls; it brings in all of the following",
    "sidecar.answers": "nobody can have asked yet",
    "sidecar.catalogue": "brings in pydantic, as long as all the rest of the start",
    "sidecar.context": "what handlers get; there is no call yet",
    "sidecar.dispatch": "there is no call yet; what comes early is kept",
    "sidecar.handsapart": "a hands in another process is not needed to say hello",
    "sidecar.handshere": "brings in all that acts",
    "sidecar.hands.apart.remote": "a hands in another process is not needed to say hello",
    "sidecar.hands.local.hands": "no path is touched and no program started before a call",
    "sidecar.localsocket": "health is asked after the start, not during it",
    "sidecar.opencalls": "there is no call yet",
    "sidecar.platform": "who has a token file never asks an endpoint",
    "sidecar.policy": "there is no call to decide about yet",
    "sidecar.processes": "no program was started yet",
    "sidecar.protocol.receipts": "a receipt is written for a call",
    "sidecar.protocol.spool": "keeps the output of programs",
    "sidecar.protocol.streams": "belong to a call",
    "sidecar.receipts": "a receipt is written for a call",
    "sidecar.spool": "keeps the output of programs",
    "sidecar.streaming": "belongs to a call",
}
OTHERS = {
    "websockets.asyncio.server": "the sidecar dials out and never listens",
    "websockets.server": "the sidecar dials out and never listens",
    "starlette": "serves the embedded hub, nothing else",
    "uvicorn": "serves the embedded hub, nothing else",
    "jwt": "the hub mints and checks tokens; the sidecar carries them unread",
    "asyncssh": "the first tunnel loads it, not the start",
    "click": "`run` is parsed without it: it costs 22 ms, a fifth of the start",
    "rich": "draws for people; nobody watches a sidecar start",
    "httpx": "the first request to the platform endpoint loads it, not the start",
    "aiohttp": "a client library of the tests",
    "pexpect": "forks, where programs must be spawned by vfork; a tool of the tests",
    "watchfiles": "started only while somebody watches",
    "pydantic": "imported after `hello` is sent: 106 ms to start instead of 172",
}
TO_COME = {"asyncssh", "watchfiles"}  # no dependency yet, so they cannot be looked up

PURE = ["errors", "protocol", "adapters", "policy", "redact"]


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    """The modules in a fresh interpreter that has imported the runtime."""
    code = "import sidecar.runtime, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("module, reason", (OURS | AFTER_HELLO | OTHERS).items())
def test_run_does_not_load(module: str, reason: str, loaded: set[str]) -> None:
    assert module not in loaded, reason


@pytest.mark.parametrize("module", [*OURS, *AFTER_HELLO, *sorted(set(OTHERS) - TO_COME)])
def test_the_list_is_current(module: str) -> None:
    assert importlib.util.find_spec(module), "renamed or gone: keep this list true"


@pytest.mark.parametrize("package", sorted(TO_COME))
def test_what_is_to_come_has_not_come(package: str) -> None:
    project = PYPROJECT["project"]
    wanted = [project["dependencies"], *project["optional-dependencies"].values()]
    names = {re.split(r"[^\w-]", line)[0] for lines in wanted for line in lines}
    assert package not in names, "a dependency now: take it out of TO_COME"


def test_each_half_can_be_imported_without_the_other() -> None:
    code = "import sidecar, sys; print(*[m for m in sys.modules if m.startswith('sidecar.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [], "the root holds the version and loads nothing"


def test_the_contract_of_what_decides_is_complete() -> None:
    contracts = PYPROJECT["tool"]["importlinter"]["contracts"]
    [contract] = [c for c in contracts if c["id"] == "pure"]
    root = Path(sidecar.__path__[0])
    present = [n for n in PURE if (root / n).is_dir() or (root / f"{n}.py").is_file()]
    assert sorted(contract["source_modules"]) == sorted(f"sidecar.{name}" for name in present)
