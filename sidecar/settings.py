"""Everything that can be set, from `SIDECAR_*` and the flags of `sidecar run`.

A knob is a field, an environment name, a unit, a default and a sentence. Nothing below
`runtime` reads a setting from the environment. A plain dataclass, because it is needed before
the sidecar dials, and pydantic is loaded after.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from sidecar.access import problem_of_folder
from sidecar.errors import CallError, SettingsError
from sidecar.hands.rootlist import problems_of_roots
from sidecar.protocol.names import check_id
from sidecar.runtimefolder import SOCKET_PATH_BYTES, runtime_folder

BYTES = "bytes"  # the unit of a size, which may be given as in 512M
LONGEST_DRAIN = 86400.0  # seconds; a day

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}


def knob(help: str, default: Any, *, unit: str = "") -> Any:
    """A setting: its sentence, its default, and its unit where it has one."""
    return field(default=default, metadata={"help": help, "unit": unit})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What `sidecar run` goes by."""

    run: str = knob("The id of the run: one DNS label. Required.", "")
    hub: str = knob("The hub's client URL, wss://HOST/client/hubs/NAME.", "")
    token_file: str = knob(
        "A file with the token: a JWT (with SIDECAR_HUB), a client URL, or JSON with url and"
        " token. Read at every dial.",
        "",
    )
    token: str = field(
        default="",
        repr=False,  # a secret
        metadata={"help": "The token itself. Never a flag: everybody may read those.", "unit": ""},
    )
    endpoint: str = knob(
        "The platform endpoint, https://HOST/PATH: gives tokens for a run token, and renews them.",
        "",
    )
    run_token_file: str = knob(
        "A file with the first run token for the endpoint; the next ones are kept in the state"
        " folder. Another one in it is the newer word.",
        "",
    )
    run_token: str = field(
        default="",
        repr=False,  # a secret
        metadata={"help": "The first run token itself. Never a flag.", "unit": ""},
    )
    hosts: str = knob(
        "The hosts that `sidecar repoint` may name, HOST or HOST:PORT, with commas between. Empty:"
        " those that the settings name and the endpoint answers, on their ports.",
        "",
    )
    handover: str = knob(
        "auto, always or never: open a new connection before the token of the old one lapses."
        " auto: once a hub was seen to end connections then.",
        "auto",
    )
    workspace: str = knob("The folder that commands may touch. `sidecar hands` has its own.", ".")
    roots: str = knob(
        "Further folders that commands may touch: PATH[:ro|:rw],PATH[:ro|:rw],... ro, for reading"
        " only, is what nothing after a path means. Absolute; none in the workspace. `sidecar"
        " hands` has its own.",
        "",
    )
    hands: str = knob(
        "The socket of a `sidecar hands`, which then acts in our place. Empty: we act ourselves.",
        "",
    )
    state: str = knob(
        "The folder for what must last: events (up to 256 MiB), receipts and output of programs"
        " (1 GiB), the run token, state.json; and for our sockets. Made with mode 0700. Empty:"
        " $XDG_RUNTIME_DIR/sidecar/RUN or /tmp/sidecar-UID/RUN, which a reboot or a new container"
        " may take away: name one on a disk that stays, if a run shall outlive those.",
        "",
    )
    environment: str = knob(
        "What programs start with: clean (PATH, HOME, LANG, ...) or inherited (all of ours"
        " less SIDECAR_*).",
        "clean",
    )
    cgroup: str = knob(
        "A cgroup v2 folder that was delegated to us: each program gets one of its own in it, and"
        " nothing escapes a kill. Costs each program 85 µs. Empty: without.",
        "",
    )
    egress_call: int = knob(
        "How many bytes of content may leave in one call: files, and what programs print. K, M, G"
        " and T may follow. 0: any number.",
        0,
        unit=BYTES,
    )
    egress_run: int = knob(
        "How many bytes of content may leave in all, also across restarts. 0: any number.",
        0,
        unit=BYTES,
    )
    subprotocol: str = knob("protobuf or json: Web PubSub's reliable subprotocols.", "protobuf")
    generation: int = knob("How many starts of this run came before; with a token file.", 1)
    drain: float = knob("How long SIGTERM waits for unacknowledged messages.", 20.0, unit="s")
    log_level: str = knob("debug, info, warning or error.", "info")
    insecure: bool = knob("Allow ws:// to another host than this one.", False)

    @property
    def state_folder(self) -> Path:
        """Where all that lasts lies: as set, or a folder of our own in the runtime folder."""
        if self.state:
            return Path(self.state)
        return runtime_folder() / (self.run or "unnamed")


def variable(name: str) -> str:
    """The environment name of a field."""
    return f"SIDECAR_{name.upper()}"


def load(environ: Mapping[str, str], **flags: Any) -> Settings:
    """Flags before environment before defaults; raises `SettingsError` for all that is wrong.

    An unknown `SIDECAR_*` variable is an error too: it is a misspelt one, unless Kubernetes set it.
    """
    known = {item.name: item for item in fields(Settings)}
    problems = _unknown(environ, known)
    values: dict[str, Any] = {}
    for name in known:
        given = flags.get(name)
        if given is None and variable(name) in environ:
            given = environ[variable(name)]
        if given is None:
            continue
        try:
            values[name] = _convert(given, getattr(_DEFAULTS, name), known[name].metadata["unit"])
        except ValueError as error:
            problems.append(f"{variable(name)}: {error}")
    settings = Settings(**values)
    problems += list(_problems(settings))
    if problems:
        raise SettingsError("\n".join(problems))
    return settings


_DEFAULTS = Settings()
# Read by the other verbs and by tests; and the mark of a program that a sidecar started.
_ALSO = {"SIDECAR_PROFILE", "SIDECAR_TEST_NO_SKIP", "SIDECAR_EXEC_ID"}


def _unknown(environ: Mapping[str, str], known: Mapping[str, Any]) -> list[str]:
    names = {variable(name) for name in known}
    return [
        f"{name} is not a setting{_nearest(name, names)}"
        for name in sorted(environ)
        if re.match(r"SIDECAR_[A-Z_]+\Z", name)
        and name not in names | _ALSO
        and not _is_service_link(name, environ[name])
    ]


def _nearest(name: str, names: Iterable[str]) -> str:
    import difflib  # only for those who misspell

    prefix = variable("")  # which all have; it would make them all alike
    ends = [known.removeprefix(prefix) for known in sorted(names)]
    close = difflib.get_close_matches(name.removeprefix(prefix), ends, n=1)
    if close:
        return f": did you mean {prefix}{close[0]}?"
    return "; `sidecar run --help` lists them"


def _is_service_link(name: str, value: str) -> bool:
    """Whether it is how Kubernetes tells every container of a service that is called `sidecar`, or
    `sidecar-SOMETHING` (Kubernetes, "Discovering services", environment variables)."""
    if name.endswith("_PORT"):
        return re.match(r"(tcp|udp|sctp)://|\d+\Z", value) is not None
    return re.search(r"_SERVICE_(HOST|PORT(_[A-Z_]+)?)\Z", name) is not None


def _convert(value: Any, default: Any, unit: str) -> Any:
    if not isinstance(value, str) or isinstance(default, str):
        return value
    if unit == BYTES:
        return _size(value)
    if isinstance(default, bool):
        if value.lower() in _TRUE | _FALSE:
            return value.lower() in _TRUE
        raise ValueError(f"{value!r} is neither yes nor no")
    try:
        return type(default)(value)
    except ValueError:
        raise ValueError(f"{value!r} is not a number") from None


def _size(value: str) -> int:
    """Bytes: `512`, `64K`, `1.5G`; K is 1024."""
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)([KMGT]?)", value.upper())
    if found is None:
        raise ValueError(f"{value!r} is no size: bytes, or with K, M, G or T behind")
    return int(float(found[1]) * 1024 ** " KMGT".index(found[2] or " "))


def _problems(settings: Settings) -> list[str]:
    """What is missing or wrong, each with how to mend it."""
    problems = []
    if not settings.run:
        problems.append("SIDECAR_RUN is missing: set it to the id of the run, for instance demo-1")
    else:
        try:
            check_id(settings.run, "SIDECAR_RUN")
        except CallError as error:
            problems.append(error.message)
    problems += _problems_of_token(settings)
    if settings.environment not in ("clean", "inherited"):
        problems.append(
            f"SIDECAR_ENVIRONMENT is {settings.environment!r}: clean or inherited expected"
        )
    if settings.subprotocol not in ("protobuf", "json"):
        problems.append(
            f"SIDECAR_SUBPROTOCOL is {settings.subprotocol!r}: protobuf or json expected"
        )
    if settings.log_level.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        problems.append(f"SIDECAR_LOG_LEVEL is {settings.log_level!r}: debug, info, warning, error")
    if not 0 <= settings.drain <= LONGEST_DRAIN:  # nor is it NaN
        problems.append(
            f"SIDECAR_DRAIN is {settings.drain}: seconds, 0 to {LONGEST_DRAIN:.0f}, expected"
        )
    if not 0 <= settings.generation < 1 << 53:
        problems.append(f"SIDECAR_GENERATION is {settings.generation}: a count expected, from 0")
    for name in ("egress_call", "egress_run"):
        if not 0 <= getattr(settings, name) < 1 << 63:
            problems.append(f"{variable(name)} is {getattr(settings, name)}: bytes, from 0")
    if len(os.fsencode(settings.hands)) > SOCKET_PATH_BYTES:
        problems.append(f"SIDECAR_HANDS is longer than {SOCKET_PATH_BYTES} bytes, as no socket is")
    if settings.cgroup and not os.access(f"{settings.cgroup}/cgroup.procs", os.W_OK):
        problems.append(
            f"SIDECAR_CGROUP is {settings.cgroup!r}: no cgroup v2 folder that we may write to"
        )
    if not settings.hands and (problem := problem_of_folder(settings.workspace)):
        problems.append(f"SIDECAR_WORKSPACE is {settings.workspace!r}: {problem}")
    elif not settings.hands:
        problems += problems_of_roots(settings.roots, settings.workspace, "SIDECAR_ROOTS")
    return problems


def _problems_of_token(settings: Settings) -> list[str]:
    """There is one source of tokens, and all of it is there."""
    problems = []
    if settings.endpoint:
        if not settings.run_token_file and not settings.run_token:
            problems.append(
                "no run token: set SIDECAR_RUN_TOKEN_FILE to a file that holds the first one"
            )
        if settings.token_file or settings.token:
            problems.append("SIDECAR_ENDPOINT gives tokens: take SIDECAR_TOKEN(_FILE) away")
    elif settings.run_token_file or settings.run_token:
        problems.append("SIDECAR_ENDPOINT is missing: it is where a run token is good for a token")
    elif not settings.token_file and not settings.token:
        problems.append(
            "no token: set SIDECAR_TOKEN_FILE to a file that holds one (or run `sidecar dev`)"
        )
    if settings.token and not settings.hub and "://" not in settings.token:
        problems.append("SIDECAR_HUB is missing: a bare token does not say where to dial")
    if settings.handover not in ("auto", "always", "never"):
        problems.append(
            f"SIDECAR_HANDOVER is {settings.handover!r}: auto, always or never expected"
        )
    return problems
