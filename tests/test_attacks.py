"""The ways of tests/support/attacks.py work where they may, and not between two users."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attacks
import pytest

OWNER, OTHER = 10001, 10002


@pytest.fixture
def target() -> Iterator[dict[str, Any]]:
    """A process and files of `OWNER`."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to have processes of two users")
    with tempfile.TemporaryDirectory(prefix="sc-") as name, socket.socket(socket.AF_UNIX) as door:
        folder = Path(name, "state")
        folder.mkdir(mode=0o700)
        (folder / "token").write_text("secret")
        door.bind(str(folder / "door"))
        door.listen()
        for path in (Path(name), folder, folder / "token", folder / "door"):
            os.chown(path, OWNER, OWNER)
        Path(name).chmod(0o755)
        sleeper = subprocess.Popen(
            ["sleep", "60"], user=OWNER, group=OWNER, extra_groups=[], stdin=subprocess.DEVNULL
        )
        yield {
            "pid": sleeper.pid,
            "uid": OWNER,
            "folders": [str(folder)],
            "files": [str(folder / "token")],
            "sockets": [str(folder / "door")],
        }
        sleeper.kill()
        sleeper.wait()


def attack(target: dict[str, Any]) -> bytes:
    command = [sys.executable, attacks.__file__, json.dumps(target)]
    return subprocess.run(command, capture_output=True, check=True, timeout=30).stdout


def test_every_way_works_for_root_and_then_for_the_owner(target: dict[str, Any]) -> None:
    assert {became for became, _ in json.loads(attack(target)).values()} == {"done"}


def test_no_way_works_for_another_user(target: dict[str, Any]) -> None:
    answer = attack({**target, "as": OTHER})
    assert len(json.loads(answer)) > 40
    assert attacks.breaches(answer) == {}


def test_a_way_that_works_is_a_breach(target: dict[str, Any]) -> None:
    found = attacks.breaches(attack({"as": OWNER, "files": target["files"]}))
    assert sorted(found.values()) == ["done", "done", "done"]
