"""Limits and the order of victims, as real programs find them."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import anyio
import pytest

from sidecar.errors import CallError, Code, Started
from sidecar.hands.interface import Hands, Limits, Program, Running
from sidecar.hands.local import programs, restraint
from sidecar.hands.local.restraint import restraints_of

KEY = b"call"
UNLIMITED = resource.RLIM_INFINITY


async def output_of(hands: Hands, program: Program) -> tuple[bytes, Running]:
    """What it prints once it was told to go on, by when it has been restrained."""
    running = await hands.spawn(program, key=KEY)
    assert running.stdin is not None and running.stderr is not None
    os.write(running.stdin, b"go\n")
    await hands.wait(KEY)
    content = os.read(running.stdout, 65536)
    for descriptor in (running.stdin, running.stdout, running.stderr):
        os.close(descriptor)
    return content, running


async def test_a_program_and_what_it_starts_have_the_limits(any_hands: Hands) -> None:
    script = "read go; sh -c 'ulimit -v; ulimit -n; ulimit -St; ulimit -Ht'"
    limits = Limits(memory=1 << 30, files=32, cpu=7)
    content, _ = await output_of(
        any_hands, Program(argv=["/bin/sh", "-c", script], stdin=True, limits=limits)
    )
    assert content == b"1048576\n32\n7\n8\n"


async def test_processes_are_limited(any_hands: Hands) -> None:
    program = Program(
        argv=["bash", "-c", "read go; ulimit -u"], stdin=True, limits=Limits(processes=99)
    )
    assert (await output_of(any_hands, program))[0] == b"99\n"


async def test_too_much_memory_is_refused_to_a_program(any_hands: Hands) -> None:
    code = "input()\ntry: bytearray(1 << 30)\nexcept MemoryError: print('refused')"
    program = Program(
        argv=[sys.executable, "-c", code], stdin=True, limits=Limits(memory=512 << 20)
    )
    assert (await output_of(any_hands, program))[0] == b"refused\n"


async def test_without_limits_a_program_has_ours(any_hands: Hands) -> None:
    program = Program(argv=["/bin/sh", "-c", "read go; ulimit -n"], stdin=True)
    ours = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert (await output_of(any_hands, program))[0] == b"%d\n" % ours


async def test_the_kernel_takes_a_program_before_us(any_hands: Hands) -> None:
    def score(process: str) -> int:
        return int(Path(f"/proc/{process}/oom_score_adj").read_text())

    ours = score("self")
    program = Program(argv=["/bin/sh", "-c", "read go; cat /proc/self/oom_score_adj"], stdin=True)
    content, _ = await output_of(any_hands, program)
    assert int(content) == min(ours + restraint.OOM_RAISE, 1000)
    assert score("self") == ours, "it is not shared with the child"


async def test_a_score_that_cannot_be_raised_ends_no_start(
    any_hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(pid: int) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(restraint, "_raise_score", refuse)
    program = Program(argv=["/bin/sh", "-c", "read go; echo ok"], stdin=True)
    assert (await output_of(any_hands, program))[0] == b"ok\n"


async def test_a_program_that_cannot_be_limited_is_killed(
    any_hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that runs as another user, which prlimit(2) refuses."""

    def refuse(pid: int, restraints: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(programs, "restrain", refuse)
    with pytest.raises(CallError) as caught:
        await any_hands.spawn(Program(argv=["sleep", "60"], limits=Limits(cpu=1)), key=KEY)
    assert (caught.value.code, caught.value.started) == (Code.PERMISSION_DENIED, Started.YES)
    with anyio.fail_after(5):
        assert (await any_hands.wait(KEY)).signal == 9


@pytest.mark.parametrize(
    "hard, expected",
    [(UNLIMITED, (5, 6)), (9, (5, 6)), (5, (5, 5))],
)
def test_a_second_lies_between_the_warning_and_the_end(
    monkeypatch: pytest.MonkeyPatch, hard: int, expected: tuple[int, int]
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda what: (UNLIMITED, hard))
    assert restraints_of(Limits(cpu=5)) == ((resource.RLIMIT_CPU, *expected),)
