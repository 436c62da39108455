"""What programs inherit.

`clean` holds what a login would set and nothing else; `inherited` is our own environment. From
neither does a program learn a variable that begins with SIDECAR_: those are our settings, and
some lead to tokens. PWD and OLDPWD are left out too, because a program has a working directory
of its own and shells trust PWD. The one SIDECAR_ variable that each program gets is the mark.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from typing import Literal

from sidecar.hands.interface import Base

Environment = Literal["clean", "inherited"]

MARK = b"SIDECAR_EXEC_ID"  # a program's key in hex, inherited by all that it starts
DEFAULT_PATH = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What is ours is passed on; where a default stands, a program always gets the variable.
_OPTIONAL = (b"LC_ALL", b"LC_CTYPE", b"TZ", b"TMPDIR")
_NEVER = (b"PWD", b"OLDPWD")
_OURS = b"SIDECAR_"


def base_environments(
    default: Environment, own: Mapping[bytes, bytes]
) -> dict[Base, dict[bytes, bytes]]:
    """What programs may be built on; `own` is our environment (`os.environb`)."""
    return {
        Base.DEFAULT: base_environment(default, own),
        Base.CLEAN: base_environment("clean", own),
        Base.EMPTY: {},
    }


def base_environment(kind: Environment, own: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """The environment of a program that asks for nothing; `own` is ours (`os.environb`)."""
    if kind == "clean":
        return _clean(own)
    kept = {name: value for name, value in own.items() if not name.startswith(_OURS)}
    return {name: value for name, value in kept.items() if name not in _NEVER}


def _clean(own: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    user, home, shell = _account()
    defaults = {
        b"PATH": DEFAULT_PATH,
        b"HOME": home,
        b"USER": user,
        b"LOGNAME": user,
        b"SHELL": shell,
        b"LANG": b"C.UTF-8",
        b"TERM": b"dumb",  # there is no terminal; what writes colours anyway should not
    }
    chosen = {name: own.get(name) or default for name, default in defaults.items()}
    return chosen | {name: own[name] for name in _OPTIONAL if name in own}


def _account() -> tuple[bytes, bytes, bytes]:
    """Name, home and shell of our user, which a container need not have in its passwd file."""
    try:
        entry = pwd.getpwuid(os.getuid())
    except KeyError:
        return str(os.getuid()).encode(), b"/", b"/bin/sh"
    values = entry.pw_name, entry.pw_dir or "/", entry.pw_shell or "/bin/sh"
    name, home, shell = (os.fsencode(value) for value in values)
    return name, home, shell
