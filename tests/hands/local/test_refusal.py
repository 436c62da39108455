"""What is not started says why, in pipes and on a terminal alike, and leaves nothing."""

from __future__ import annotations

import os
import resource
import shutil
from pathlib import Path

import pytest

from sidecar.errors import CallError, Code, Started
from sidecar.hands.interface import Base, Hands, Limits, Program, Terminal

KEY = b"call"


@pytest.fixture(params=[None, Terminal()], ids=["pipes", "terminal"])
def terminal(request: pytest.FixtureRequest) -> Terminal | None:
    found: Terminal | None = request.param
    return found


@pytest.fixture
def misfits(root: Path) -> Path:
    """Files of the workspace that look like programs."""
    files = {
        "plain": (0o644, b"#!/bin/sh\n"),
        "orphan": (0o755, b"#!/no/such/interpreter -x\n"),
        "barred": (0o755, b"#! ./plain\n"),
        "empty-line": (0o755, b"#!\n"),
        "text": (0o755, b"just words\n"),
    }
    for name, (mode, content) in files.items():
        (root / name).write_bytes(content)
        (root / name).chmod(mode)
    (root / "folder").mkdir()
    (root / "out").symlink_to("../outside")
    return root


async def refusal(hands: Hands, program: Program) -> CallError:
    """The error of a program that is not started; nothing is known of it afterwards."""
    with pytest.raises(CallError) as caught:
        await hands.spawn(program, key=KEY)
    assert caught.value.started == Started.NO
    assert await hands.known() == []
    return caught.value


@pytest.mark.parametrize(
    "name, code, words",
    [
        ("no-such-program", Code.NOT_FOUND, "No such file"),
        ("./nothing", Code.NOT_FOUND, "No such file"),
        ("/etc/passwd/x", Code.NOT_DIRECTORY, "Not a directory"),
        ("./plain", Code.PERMISSION_DENIED, "Permission denied"),
        ("plain", Code.PERMISSION_DENIED, "Permission denied"),
        ("./folder", Code.IS_DIRECTORY, "Is a directory"),
        ("folder", Code.IS_DIRECTORY, "Is a directory"),
        ("/", Code.IS_DIRECTORY, "Is a directory"),
        ("./orphan", Code.NOT_FOUND, "its interpreter '/no/such/interpreter' is not"),
        ("orphan", Code.NOT_FOUND, "its interpreter '/no/such/interpreter' is not"),
        ("./barred", Code.PERMISSION_DENIED, "its interpreter './plain' may not be run"),
        ("./empty-line", Code.PERMISSION_DENIED, "neither a program"),
        ("./text", Code.PERMISSION_DENIED, "neither a program"),
    ],
)
async def test_what_cannot_be_run_says_why(
    any_hands: Hands, misfits: Path, terminal: Terminal | None, name: str, code: Code, words: str
) -> None:
    program = Program(argv=[name, "x"], env={"PATH": f"/bin:{misfits}"}, terminal=terminal)
    error = await refusal(any_hands, program)
    assert error.code == code
    assert words in error.message


async def test_a_program_without_a_loader_says_so(
    any_hands: Hands, root: Path, terminal: Terminal | None
) -> None:
    shutil.copy("/bin/true", root / "foreign")
    content = (root / "foreign").read_bytes()
    (root / "foreign").write_bytes(content.replace(b"/ld-", b"/no-", 1))
    error = await refusal(any_hands, Program(argv=["./foreign"], terminal=terminal))
    assert error.code == Code.NOT_FOUND
    assert "its loader is not" in error.message


@pytest.mark.parametrize(
    "cwd, code",
    [
        ("..", Code.OUTSIDE),
        ("/", Code.OUTSIDE),
        ("out", Code.OUTSIDE),
        ("nothing", Code.NOT_FOUND),
        ("plain", Code.NOT_DIRECTORY),
        ("a\0b", Code.INVALID),
    ],
)
async def test_a_working_directory_that_is_none_starts_nothing(
    any_hands: Hands, misfits: Path, terminal: Terminal | None, cwd: str, code: Code
) -> None:
    program = Program(argv=["true"], cwd=cwd, terminal=terminal)
    assert (await refusal(any_hands, program)).code == code


async def test_one_argument_that_is_too_long_is_a_limit(
    any_hands: Hands, terminal: Terminal | None
) -> None:
    error = await refusal(any_hands, Program(argv=["true", "x" * 200_000], terminal=terminal))
    assert error.code == Code.LIMIT
    assert error.details["size"] == 200_001
    assert error.details["limit"] == 32 * os.sysconf("SC_PAGE_SIZE")


async def test_all_arguments_together_that_are_too_long_are_a_limit(
    any_hands: Hands, terminal: Terminal | None
) -> None:
    argv = ["true", *["x" * 100_000] * 70]
    error = await refusal(any_hands, Program(argv=argv, terminal=terminal, base=Base.EMPTY))
    assert error.code == Code.LIMIT
    assert "arguments and environment" in error.message
    assert 7_000_600 < error.details["size"] < 7_002_000
    assert 128 * 1024 <= error.details["limit"] <= 6 << 20


@pytest.mark.parametrize("name", ["memory", "processes", "files", "cpu"])
async def test_a_limit_above_our_own_starts_nothing(
    any_hands: Hands, monkeypatch: pytest.MonkeyPatch, terminal: Terminal | None, name: str
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda what: (100, 1000))
    limits = Limits(**{name: 1001})
    error = await refusal(any_hands, Program(argv=["true"], limits=limits, terminal=terminal))
    assert error.code == Code.LIMIT
    assert error.message == f"limit of {name}: 1001, at most 1000 allowed"


@pytest.mark.parametrize("value", [-1, 1 << 63])
async def test_a_limit_that_the_kernel_cannot_take_is_invalid(
    any_hands: Hands, terminal: Terminal | None, value: int
) -> None:
    program = Program(argv=["true"], limits=Limits(memory=value), terminal=terminal)
    assert (await refusal(any_hands, program)).code == Code.INVALID
