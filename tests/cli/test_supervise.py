"""`sidecar supervise` as a verb: its command line, its help, and what it loads."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from sidecar.cli.supervise import parse
from sidecar.cli.usage import BadUsage

NOT_LOADED = {
    "anyio": "it waits for signals, nothing else",
    "asyncio": "it waits for signals, nothing else",
    "cbor2": "it speaks to nobody",
    "click": "it is parsed without",
    "dataclasses": "2.5 MB for a few fields",
    "logging": "2 MB, and a handler that waits for a pipe",
    "pydantic": "it checks nothing that comes from outside",
    "sidecar.settings": "the settings are core's, and so is what they lead to",
    "socket": "it speaks to nobody",
    "ssl": "it speaks to nobody",
    "subprocess": "it forks by itself, and says why exec failed",
    "threading": "it forks, so it may have one thread only",
    "typing": "1 MB for names",
}


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    """The modules of a fresh interpreter, isolated as in an image, that has the whole verb."""
    code = "import sidecar.cli.supervise, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    plain = subprocess.run(
        [sys.executable, "-c", "import sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split()) - set(plain.stdout.split())


@pytest.mark.parametrize("module, reason", NOT_LOADED.items())
def test_it_does_not_load(module: str, reason: str, loaded: set[str]) -> None:
    assert module not in loaded, reason


def test_of_ours_it_loads_its_own_room_only(loaded: set[str]) -> None:
    ours = {name for name in loaded if name.startswith("sidecar.")}
    others = {"sidecar.cli", "sidecar.cli.supervise", "sidecar.cli.usage"}
    assert {name for name in ours - others if not name.startswith("sidecar.supervisor")} == set()


def test_flags_go_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIDECAR_AGENT_USER", "node")
    monkeypatch.setenv("SIDECAR_CORE_USER", "500")
    monkeypatch.setenv("SIDECAR_HANDS", "/meet/s")
    monkeypatch.setenv("SIDECAR_NEW_PRIVILEGES", "yes")
    found = parse(["--agent-user=app:7", "--grace", "9", "--", "ls", "--grace", "--", "x"])
    assert (found.agent_user, found.core_user) == ("app:7", "500")
    assert (found.socket, found.grace, found.new_privileges) == ("/meet/s", "9", True)
    assert found.command == ["ls", "--grace", "--", "x"]


def test_without_anything_there_are_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AGENT_USER", "CORE_USER", "HANDS", "GRACE", "NEW_PRIVILEGES"):
        monkeypatch.delenv(f"SIDECAR_{name}", raising=False)
    found = parse(["--new-privileges"])
    assert (found.agent_user, found.core_user) == ("10002", "10001")
    assert (found.socket, found.grace) == ("/run/sidecar/hands.sock", "")
    assert found.new_privileges
    assert found.command == []


def test_an_image_whose_cmd_is_empty_has_no_command() -> None:
    assert parse(["--"]).command == []


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["ls"], "'ls' is out of place; a command goes after --"),
        (["--run", "demo"], "'--run' is out of place: it is a setting, set SIDECAR_RUN"),
        (["--token=x"], "'--token' is out of place"),
        (["--grace"], "--grace needs a value"),
        (["--new-privileges=yes"], "'--new-privileges' is out of place"),
    ],
)
def test_what_cannot_be_understood(arguments: list[str], words: str) -> None:
    with pytest.raises(BadUsage, match=words):
        parse(arguments)


def test_help_teaches(bench: Any) -> None:
    done = bench("supervise", "--help")
    assert done.returncode == 0
    assert b'ENTRYPOINT ["/opt/sidecar/bin/sidecar", "supervise"' in done.stdout
    assert b"\n  supervise " in bench("--help").stdout


def test_a_bad_command_line_is_one_line_and_two(bench: Any) -> None:
    done = bench("supervise", "--colour=red")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == (
        b"sidecar supervise: '--colour' is out of place (see `sidecar supervise --help`)\n"
    )
