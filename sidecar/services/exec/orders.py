"""The arguments of a call as what is to be started."""

from __future__ import annotations

from sidecar.hands.interface import Base, Limits, Program, Terminal
from sidecar.processes.record import Spec
from sidecar.protocol.commands import ProgramArguments
from sidecar.protocol.spool import OnFull


def spec_of(arguments: ProgramArguments, *, is_brief: bool = False, may_hold: bool = True) -> Spec:
    """`may_hold`: whether there can be a reader who makes room."""
    return Spec(
        program=program_of(arguments),
        input=arguments.stdin if isinstance(arguments.stdin, bytes) else None,
        timeout=arguments.timeout,
        idle_timeout=arguments.idle_timeout,
        grace=arguments.grace,
        ends_daemons=arguments.daemons == "end",
        on_full=OnFull(arguments.on_full) if may_hold else OnFull.DROP,
        is_brief=is_brief,
    )


def program_of(arguments: ProgramArguments) -> Program:
    """What hands is told."""
    terminal, limits = arguments.terminal, arguments.limits
    return Program(
        argv=arguments.argv,
        shell=arguments.shell,
        cwd=arguments.cwd,
        env=arguments.env,
        unset=arguments.unset,
        base=Base(arguments.base),
        stdin=arguments.stdin != "none",
        terminal=None
        if terminal is None
        else Terminal(terminal.rows, terminal.cols, terminal.term),
        limits=None
        if limits is None
        else Limits(limits.memory, limits.processes, limits.files, limits.cpu),
    )
