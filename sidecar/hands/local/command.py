"""A program as the kernel takes it: its strings as bytes, its environment built, all checked.

What is wrong with a `Program` is found here, before anything is opened or started.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sidecar.errors import Invalid
from sidecar.hands.interface import Base, Program
from sidecar.hands.local.environment import DEFAULT_PATH, MARK
from sidecar.hands.local.restraint import Restraint, restraints_of
from sidecar.hands.local.terminal import check_size
from sidecar.hands.names import as_bytes

_NO_SHELLS = (b"nologin", b"false")
_SIZES = (b"LINES", b"COLUMNS")


@dataclass(frozen=True, slots=True)
class Command:
    """A `Program` as the kernel takes it."""

    argv: tuple[bytes, ...]
    environment: dict[bytes, bytes]
    stdin: bool = False
    size: tuple[int, int] | None = None  # rows and columns of its terminal
    plain: bool = False  # see `interface.Terminal`
    control: bool = False
    restraints: tuple[Restraint, ...] = ()

    def candidates(self) -> Iterator[bytes]:
        """Where its file may be, in the order of its own PATH; relative to its directory."""
        name = self.argv[0]
        if b"/" in name:
            yield name
            return
        for folder in self.environment.get(b"PATH", DEFAULT_PATH).split(b":"):
            yield posixpath.join(folder, name)


def command_of(program: Program, bases: Mapping[Base, dict[bytes, bytes]], key: bytes) -> Command:
    """Check `program` and put it on top of its base environment. Raises `Invalid` and
    `LimitExceeded`."""
    environment = _environment(program, bases[program.base])
    environment[MARK] = key.hex().encode()
    if (program.argv is None) == (program.shell is None):
        raise Invalid("a program has either argv or shell")
    if program.shell is not None:
        argv = [_shell(environment), b"-c", as_bytes(program.shell, "shell")]
    else:
        argv = [as_bytes(word, "argument") for word in program.argv or ()]
    if not argv or not argv[0]:
        raise Invalid("argv needs at least the name of a program")
    terminal = program.terminal
    if terminal is not None:
        check_size(terminal.rows, terminal.cols)
    return Command(
        argv=tuple(argv),
        environment=environment,
        stdin=program.stdin,
        size=None if terminal is None else (terminal.rows, terminal.cols),
        plain=terminal is not None and terminal.plain,
        control=program.control,
        restraints=restraints_of(program.limits),
    )


def _environment(program: Program, base: dict[bytes, bytes]) -> dict[bytes, bytes]:
    environment = dict(base)
    for name in program.unset:
        environment.pop(as_bytes(name, "variable"), None)
    if program.terminal is not None:
        # They would speak of another terminal, and are believed in preference to the real size.
        for size in _SIZES:
            environment.pop(size, None)
        environment[b"TERM"] = as_bytes(program.terminal.term, "term")
    for name, value in (program.env or {}).items():
        encoded = as_bytes(name, "variable")
        if not encoded or b"=" in encoded:
            raise Invalid(f"variable {name!r}: a name is not empty and holds no '='")
        environment[encoded] = as_bytes(value, f"value of {name}")
    return environment


def _shell(environment: dict[bytes, bytes]) -> bytes:
    """$SHELL, unless it is one that only refuses a login."""
    shell = environment.get(b"SHELL", b"")
    is_usable = shell.startswith(b"/") and posixpath.basename(shell) not in _NO_SHELLS
    return shell if is_usable else b"/bin/sh"
