"""What the register says of a program, as CBOR: how it was to be started, and how it ended.

An earlier process of this very package wrote it, or one of another version: what does not fit
any more is a `ValueError`, and the program is then one that nobody knows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from sidecar.errors import ProtocolError
from sidecar.hands.interface import Exit, Program, Terminal
from sidecar.processes.record import Ended, Resize, Spec, Told
from sidecar.protocol import envelope
from sidecar.protocol.spool import OnFull

T = TypeVar("T")

_OF_EXIT = [field.name for field in fields(Exit)]  # `asdict` takes 20 us, at every end


@dataclass(frozen=True, slots=True)
class Saved:
    """A program as its core knew it. Times as in `Process`."""

    id: bytes
    spec: Spec
    told: Told
    owner: str | None
    began: float
    began_wall: float
    has_given_input: bool  # all of its input came with the call
    resizes: Sequence[Resize] = ()
    is_adopted: bool = False  # it ran before the core that saved this: offsets count from there


@dataclass(frozen=True, slots=True)
class SavedEnd:
    """How it ended, and when."""

    ended: Ended
    wall: float


def pack(saved: Saved) -> bytes:
    """At most some 2,500 bytes: what is long about a program was cut before."""
    spec = saved.spec
    terminal = spec.program.terminal
    found = {
        "id": saved.id,
        "owner": saved.owner,
        "began": saved.began,
        "wall": saved.began_wall,
        "command": saved.told.command,
        "cwd": saved.told.cwd,
        "given": saved.has_given_input,
        "timeout": spec.timeout,
        "idle": spec.idle_timeout,
        "grace": spec.grace,
        "daemons": spec.ends_daemons,
        "on_full": str(spec.on_full),
        "brief": spec.is_brief,
        "terminal": None if terminal is None else asdict(terminal),
        "adopted": saved.is_adopted,
        "resizes": [[one.offset, one.rows, one.cols] for one in saved.resizes],
    }
    return envelope.dumps(found)


def unpack(content: bytes) -> Saved:
    """Raises `ValueError`."""
    return _checked(_unpack, content)


def _unpack(found: Any) -> Saved:
    terminal = found["terminal"]
    spec = Spec(
        Program(terminal=None if terminal is None else Terminal(**terminal)),
        timeout=found["timeout"],
        idle_timeout=found["idle"],
        grace=found["grace"],
        ends_daemons=found["daemons"],
        on_full=OnFull(found["on_full"]),
        is_brief=found["brief"],
    )
    return Saved(
        id=found["id"],
        spec=spec,
        told=Told(found["command"], found["cwd"]),
        owner=found["owner"],
        began=found["began"],
        began_wall=found["wall"],
        has_given_input=found["given"],
        resizes=[Resize(*one) for one in found["resizes"]],
        is_adopted=found.get("adopted", False),
    )


def pack_end(end: SavedEnd) -> bytes:
    """At most some 500 bytes."""
    ended = end.ended
    exit = ended.exit
    seen = None if exit is None else {name: getattr(exit, name) for name in _OF_EXIT}
    return envelope.dumps([seen, ended.duration, ended.which, ended.why[:256], end.wall])


def unpack_end(content: bytes) -> SavedEnd:
    """Raises `ValueError`."""
    return _checked(_unpack_end, content)


def _unpack_end(found: Any) -> SavedEnd:
    exit, duration, which, why, wall = found
    return SavedEnd(Ended(None if exit is None else Exit(**exit), duration, which, why), wall)


def _checked(read: Callable[[Any], T], content: bytes) -> T:
    try:
        return read(envelope.loads(content))
    except (ProtocolError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"what was saved of a program is not understood: {error}") from error
