"""What the methods of `Hands` take and give, as plain values that CBOR has.

Twins: `..._map` or `..._row` makes the plain value, `..._from` checks it and makes ours again.
Core reads what a hands that it does not trust has written, so every `..._from` of a result
checks each field, raising `ProtocolError`. Text that is no UTF-8 (a path with bytes of another
encoding, PEP 383) travels as bytes; the kernel takes either.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from sidecar.errors import CallError, ProtocolError
from sidecar.hands.interface import (
    COMMAND_BYTES,
    Base,
    Entry,
    Exit,
    FileStat,
    FileType,
    Known,
    Limits,
    Listing,
    Path,
    Program,
    Survivor,
    Terminal,
)
from sidecar.hands.names import as_bytes
from sidecar.protocol import envelope
from sidecar.protocol.fields import is_bool, is_bytes, is_text, is_uint

MAX_KEY = 64  # bytes of a program's key
MAX_FACT = 4096  # characters of a capability, or of a detail of an error
MAX_FACTS = 64
MAX_FACTS_SIZE = 16 * 1024  # characters of all capabilities: they travel in one event
MAX_EXIT_STATUS = 255
MAX_SIGNAL = 64

T = TypeVar("T")


def plain(text: Path, what: str) -> Path:
    """`text` as it travels. Raises `Invalid` for a surrogate that stands for no byte."""
    if isinstance(text, bytes):
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return as_bytes(text, what)
    return text


# Programs ---------------------------------------------------------------------------------


def program_map(program: Program) -> dict[str, Any]:
    """For a request; what has its default is left out."""
    found: dict[str, Any] = {}
    if program.argv is not None:
        found["argv"] = [plain(word, "argument") for word in program.argv]
    if program.shell is not None:
        found["shell"] = plain(program.shell, "shell")
    if program.cwd is not None:
        found["cwd"] = plain(program.cwd, "path")
    if program.env:
        found["env"] = [
            [plain(name, "variable"), plain(value, f"value of {name}")]
            for name, value in program.env.items()
        ]
    if program.unset:
        found["unset"] = [plain(name, "variable") for name in program.unset]
    if program.base is not Base.DEFAULT:
        found["base"] = str(program.base)
    for name in ("stdin", "control"):
        if getattr(program, name):
            found[name] = True
    if program.terminal is not None:
        found["terminal"] = asdict(program.terminal)
    if program.limits is not None:
        found["limits"] = asdict(program.limits)
    return found


def program_from(found: Mapping[str, Any]) -> Program:
    """What core asks for. Hands trusts core, and the kernel checks the rest."""
    terminal, limits = found.get("terminal"), found.get("limits")
    try:
        return Program(
            argv=found.get("argv"),
            shell=_optional_text(found.get("shell")),
            cwd=found.get("cwd"),
            env={_text(name): _text(value) for name, value in found.get("env", ())},
            unset=[_text(name) for name in found.get("unset", ())],
            base=Base(found.get("base", Base.DEFAULT)),
            stdin=bool(found.get("stdin")),
            terminal=None if terminal is None else Terminal(**terminal),
            control=bool(found.get("control")),
            limits=None if limits is None else Limits(**limits),
        )
    except (TypeError, ValueError) as error:
        raise ProtocolError(f"a program that is none: {error}") from None


def exit_row(ended: Exit) -> list[Any]:
    return [ended.status, ended.signal, ended.user_cpu, ended.system_cpu, ended.max_rss]


def exit_from(row: Any) -> Exit:
    status, number, user_cpu, system_cpu, max_rss = _fields(row, 5, "an exit")
    is_exit = is_uint(status) and status <= MAX_EXIT_STATUS and number is None
    is_signal = is_uint(number) and 0 < number <= MAX_SIGNAL and status is None
    _demand(is_exit or is_signal, "an exit with either status or signal")
    return Exit(status, number, _seconds(user_cpu), _seconds(system_cpu), _uint(max_rss))


def are_numbers_of_process(pid: Any, start_time: Any) -> bool:
    """Whether a kernel may have given them: `pid_t` is an int, and a start time is written down
    in 64 bits with a sign. A hands that says others would have us fail at that."""
    return is_uint(pid) and pid < 1 << 31 and is_uint(start_time) and start_time < 1 << 63


def known_row(known: Known) -> list[Any]:
    found = known.key, known.pid, known.start_time, known.has_ended, known.has_terminal
    return [*found, known.command]


def known_from(rows: Any) -> list[Known]:
    return [_known_from(row) for row in _list(rows, "known programs")]


def _known_from(row: Any) -> Known:
    key, pid, start_time, has_ended, has_terminal, command = _fields(row, 6, "a known program")
    _demand(is_bool(has_ended) and is_bool(has_terminal), "whether it ended")
    _demand(isinstance(command, bytes), "its command")
    _demand(are_numbers_of_process(pid, start_time), "a process")
    return Known(_key(key), pid, start_time, has_ended, has_terminal, command[:COMMAND_BYTES])


def survivors_rows(survivors: Mapping[bytes, Sequence[Survivor]], most: int) -> list[Any]:
    """[key, [[pid, start time, name], ...]] for each program; at most `most` processes in all."""
    rows: list[Any] = []
    for key, found in survivors.items():
        if most <= 0:
            break
        rows.append([key, [[s.pid, s.start_time, s.name] for s in found[:most]]])
        most -= len(found)
    return rows


def survivors_from(rows: Any) -> dict[bytes, list[Survivor]]:
    found = {}
    for row in _list(rows, "survivors"):
        key, processes = _fields(row, 2, "survivors of a program")
        found[_key(key)] = [_survivor_from(p) for p in _list(processes, "survivors")]
    return found


def _survivor_from(row: Any) -> Survivor:
    pid, start_time, name = _fields(row, 3, "a survivor")
    return Survivor(_uint(pid), _uint(start_time), _bytes(name))


# Files ------------------------------------------------------------------------------------


def stat_row(stat: FileStat) -> list[Any]:
    numbers = [stat.size, stat.mode, stat.mtime_ns, stat.inode, stat.device]
    return [str(stat.type), *numbers, stat.uid, stat.gid, stat.links, stat.target]


def stat_from(row: Any) -> FileStat:
    kind, size, mode, mtime_ns, inode, device, uid, gid, links, target = _fields(row, 10, "a stat")
    _demand(kind in FileType.__members__.values(), "a type of file")
    _demand(type(mtime_ns) is int and abs(mtime_ns) < 1 << 63, "a time")  # may lie before 1970
    _demand(is_uint(mode) and mode <= 0o7777, "a mode")
    return FileStat(
        type=FileType(kind),
        size=_uint(size),
        mode=mode,
        mtime_ns=mtime_ns,
        inode=_uint(inode),
        device=_uint(device),
        uid=_uint(uid),
        gid=_uint(gid),
        links=_uint(links),
        target=None if target is None else _bytes(target),
    )


def listing_row(listing: Listing, room: int) -> list[Any]:
    """[more, [[name, stat], ...]] in about `room` bytes: a page that is cut has more."""
    rows: list[Any] = []
    for entry in listing.entries:
        room -= _ENTRY_BYTES + len(entry.name) + len(entry.stat.target or b"")
        if room < 0 and rows:
            return [True, rows]
        rows.append([entry.name, stat_row(entry.stat)])
    return [listing.more, rows]


_ENTRY_BYTES = 96  # of an entry without its names, as CBOR, at the most


def listing_from(row: Any, limit: int) -> Listing:
    more, rows = _fields(row, 2, "a page")
    _demand(is_bool(more) and len(_list(rows, "entries")) <= limit, "a page of that size")
    return Listing([_entry_from(entry) for entry in rows], more)


def _entry_from(row: Any) -> Entry:
    name, stat = _fields(row, 2, "an entry")
    is_name = is_bytes(name) and 0 < len(name) < 1024 and b"/" not in name and b"\0" not in name
    _demand(is_name and name not in (b".", b".."), "a name")
    return Entry(name, stat_from(stat))


# Facts and errors -------------------------------------------------------------------------


def capabilities_from(found: Any) -> dict[str, str | bool]:
    """A few short facts: they go into events and answers."""
    _demand(type(found) is dict and len(found) <= MAX_FACTS, "capabilities")
    for name, value in found.items():
        _demand(is_text(name) and len(name) <= MAX_KEY, "the name of a capability")
        _demand(is_bool(value) or (is_text(value) and len(value) <= MAX_FACT), f"{name!r}")
    _demand(sum(len(str(value)) for value in found.values()) <= MAX_FACTS_SIZE, "short facts")
    return dict(found)


def error_from(content: Mapping[str, Any]) -> CallError:
    """The error of a hands, cut to what a controller may be told."""
    error = envelope.error_from(dict(content))
    error.message = envelope.sentence(error.message)
    error.args = (error.message,)
    error.details = {
        name[:MAX_KEY]: value[:MAX_FACT] if isinstance(value, str | bytes) else value
        for name, value in list(error.details.items())[:MAX_FACTS]
        if value is None or isinstance(value, str | bytes | int | float)
    }
    return error


# Checks -----------------------------------------------------------------------------------


def _demand(holds: bool, what: str) -> None:
    if not holds:
        raise ProtocolError(f"{what} was expected from hands, and it sent something else")


def _fields(row: Any, count: int, what: str) -> list[Any]:
    _demand(type(row) is list and len(row) == count, what)
    found: list[Any] = row
    return found


def _list(value: Any, what: str) -> list[Any]:
    _demand(type(value) is list, what)
    found: list[Any] = value
    return found


def _uint(value: Any) -> int:
    _demand(is_uint(value), "a number")
    number: int = value
    return number


def _bytes(value: Any) -> bytes:
    _demand(is_bytes(value), "a byte string")
    found: bytes = value
    return found


def _key(value: Any) -> bytes:
    _demand(is_bytes(value) and len(value) <= MAX_KEY, "a key")
    key: bytes = value
    return key


def _seconds(value: Any) -> float:
    _demand(type(value) is float and math.isfinite(value) and value >= 0, "seconds")
    seconds: float = value
    return seconds


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if not isinstance(value, str):
        raise ProtocolError(f"text was expected, got {type(value).__name__}")
    return value


def _optional_text(value: Any) -> str | None:
    return None if value is None else _text(value)
