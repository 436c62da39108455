"""What the verbs print, and how they end.

Results go to stdout, everything else to stderr. Names and messages come from a sandbox, which
may be hostile: on a terminal, control characters are shown, not obeyed.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from typing import Any, TextIO

import click

from sidecar.errors import CallError, ChannelError, SettingsError

FAILED = 1
BROKEN_PIPE = 141  # 128 + SIGPIPE, what a shell shows for a program that died of it

HINTS = {
    "network": "is the hub running, and is there a way to it?",
    "expired": "the token has lapsed: get a new one",
    "refused": "the token is for another hub, run or controller",
    "no_token": "start `sidecar dev` again, or check the token file",
    "timeout": "is its sidecar running? `sidecar health` says how it is",
    "outside": "paths are relative to the workspace, or absolute below another root (`sidecar"
    " info` shows them); links that lead out are refused",
    "not_found": "`sidecar ls` shows what is there",
    "is_directory": "`sidecar ls` lists it, `sidecar cp -r` copies it with all that is in it",
    "limit": "ask for less at once, or wait until other calls have ended",
    "hands_away": "try again in a moment",
}


def set_up_streams() -> None:
    """Names that are not UTF-8 pass through as the bytes they are, and every line is written
    when it ends, also into a pipe: whoever reads `hub`, `dev` or `events` there waits for it."""
    _open_closed()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(  # type: ignore[union-attr]
            errors="surrogateescape", line_buffering=True
        )


def _open_closed() -> None:
    """Streams that were closed when we started (`>&-`) lead nowhere from here on: else what we
    open takes their numbers, and a program's output goes into, say, the connection to the hub."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            fd = os.open(os.devnull, os.O_RDWR)  # it gets the lowest number that is free
            if name != "stdin":
                setattr(sys, name, open(fd, "w"))


def complain(message: str) -> None:
    """One line on stderr. A terminal may be raw just now, and then needs the carriage return."""
    end = "\r\n" if sys.stderr.isatty() else "\n"
    print(f"sidecar: {visible(message, sys.stderr)}", end=end, file=sys.stderr, flush=True)


def explain(error: Exception) -> None:
    """What went wrong, and where there is something to do about it, what."""
    hint = None
    if isinstance(error, CallError):
        complain(f"{error.code}: {error.message}")
        is_program = error.code == "timeout" and error.details.get("which") != "attach"
        hint = None if is_program else HINTS.get(error.code)
        if "exec" in error.details:
            hint = "`sidecar ps --all` shows which programs are known"
    elif isinstance(error, ChannelError):
        complain(f"{error.reason}: {error}")
        hint = HINTS.get(error.reason)
    elif isinstance(error, SettingsError):
        complain(str(error))
    elif isinstance(error, OSError):
        name = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        complain(f"{name}{error.strerror or error}")
    else:
        complain(f"{type(error).__name__}: {error}")
    if hint:
        print(f"  hint: {hint}", file=sys.stderr)


def visible(text: str, stream: TextIO) -> str:
    """`text` for `stream`: on a terminal, what is not printable is replaced."""
    if not stream.isatty():
        return text
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def show(text: str = "") -> None:
    """One line on stdout, whose text came from a sandbox: on a terminal it stays one."""
    shown = visible(text, sys.stdout)
    print(shown.replace("\n", "\N{REPLACEMENT CHARACTER}") if sys.stdout.isatty() else shown)


def show_json(value: Any) -> None:
    """One line of JSON on stdout, at once."""
    print(json.dumps(jsonable(value)), flush=True)


def jsonable(value: Any) -> Any:
    """`value` with its bytes as `{"base64": ...}`, for what is not text is not JSON."""
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    return value


def text_or_bytes(data: bytes) -> str | bytes:
    """`data` as text if that is what it is."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def wire_path(text: str) -> str | bytes:
    """A path from the command line as it travels: text, or its bytes if they are not UTF-8."""
    return text_or_bytes(os.fsencode(text))


def fail_usage(message: str) -> click.UsageError:
    """The error for a command line that makes no sense."""
    return click.UsageError(message, click.get_current_context(silent=True))
