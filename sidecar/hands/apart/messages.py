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
from itertools import pairwise
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
    Selection,
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
MAX_DEPTH = 4  # maps and lists within each other, of a tool's result
MAX_EXIT_STATUS = 255
MAX_SIGNAL = 64
TREE_PATH = 8192  # bytes of a path below the start of a walk

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


def selection_map(selection: Selection) -> dict[str, Any]:
    """For a request."""
    return {
        "exclude": [plain(pattern, "pattern") for pattern in selection.exclude],
        "ignore": selection.ignore,
        "globs": [plain(glob, "glob") for glob in selection.globs],
        "depth": selection.depth,
    }


def selection_from(found: Mapping[str, Any]) -> Selection:
    """What core asks for."""
    return Selection(found["exclude"], found["ignore"], found["globs"], found["depth"])


def listing_row(listing: Listing, room: int) -> list[Any]:
    """[next, [[path, stat, error], ...]] in about `room` bytes: a page that is cut has a next."""
    rows: list[Any] = []
    for entry in listing.entries:
        room -= entry.weight
        if room < 0 and rows:
            return [rows[-1][0], rows]
        stat = None if entry.stat is None else stat_row(entry.stat)
        error = None if entry.error is None else envelope.error_map(entry.error)
        rows.append([entry.path, stat, error])
    return [listing.next, rows]


def listing_from(row: Any, after: bytes | None, limit: int) -> Listing:
    """A page of what follows `after`, in order, and itself followed by what comes later: or a
    hands that repeats itself would keep its reader for ever."""
    following, rows = _fields(row, 2, "a page")
    _demand(len(_list(rows, "entries")) <= limit, "a page of that size")
    entries = [_entry_from(entry) for entry in rows]
    places = [_place(path) for path in (after, *(entry.path for entry in entries)) if path]
    _demand(all(one < other for one, other in pairwise(places)), "entries in their order")
    if following is not None:
        last = places[-1:] if entries else []
        is_on = _place(_tree_path(following)) >= last[0] if last else True
        has_moved = not after or _place(following) > _place(after)
        _demand(is_on and has_moved, "a next page")
    return Listing(entries, following)


def _entry_from(row: Any) -> Entry:
    path, stat, error = _fields(row, 3, "an entry")
    _demand(error is None or type(error) is dict, "an error")
    _demand(stat is not None or error is not None, "a stat or an error")
    return Entry(
        _tree_path(path),
        None if stat is None else stat_from(stat),
        None if error is None else error_from(error),
    )


def _tree_path(value: Any) -> bytes:
    """A path below where a walk began."""
    _demand(is_bytes(value) and len(value) <= TREE_PATH and b"\0" not in value, "a path")
    names = value.split(b"/")
    _demand(not {b"", b".", b".."}.intersection(names), "a path of names")
    _demand(max(map(len, names)) < 1024, "names that are not too long")
    path: bytes = value
    return path


def _place(path: bytes) -> tuple[bytes, ...]:
    """Where it stands in the order of a walk."""
    return tuple(path.split(b"/"))


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
