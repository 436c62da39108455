"""What `sidecar run` says first when something is wrong, literally, and whether it ends or waits.

Each case is a real process at the default log level. What is told of a file that may not be read
needs a process without root's privileges, which setpriv(1) starts.
"""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from answering import answering
from certificate import server_context

import sidecar

WAITS = 69  # what it ends with when it is told to: there was no channel
TIME = 20.0  # seconds for a line
ANSWERS = {
    "refused": "401",
    "ahead": "401 -10800",
    "behind": "401 10800",
    "taken-ahead": "101 -10800",
    "page": "200",
    "none": "404",
    "elsewhere": "302",
    "down": "503",
    "forbidden": "403",
    "secret": "407",
}


def token(**claims: object) -> str:
    """Of the sidecar of run demo; nobody here looks at the key."""
    known = {"webpubsub.group": ["in.demo", "see.demo"], "exp": 4_000_000_000}
    payload = json.dumps(known | claims).encode()
    return f"e30.{base64.urlsafe_b64encode(payload).rstrip(b'=').decode()}.c2ln"


@dataclass
class Place:
    """Where the cases play. `names` are what their lines may hold in braces."""

    folder: Path
    names: dict[str, object] = field(default_factory=dict)
    environ: dict[str, str] = field(default_factory=dict)

    def file(self, name: str, content: str, mode: int = 0o644) -> Path:
        path = self.folder / name
        path.write_text(content)
        path.chmod(mode)
        return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("first")
    context, pem = server_context(folder)
    with (
        answering(ANSWERS) as port,
        answering(ANSWERS, context=context) as tls,
        answering(ANSWERS, context=context, host="127.0.0.2") as tls2,
        socket.create_server(("127.0.0.1", 0)) as taken,
        socket.create_server(("127.0.0.1", 0)) as silent,
    ):
        closed = taken.getsockname()[1]
        taken.close()
        names = {
            "folder": folder,
            "port": port,
            "tls": tls,
            "tls2": tls2,
            "closed": closed,
            "silent": silent.getsockname()[1],
            "pem": pem,
            "us": f"{os.geteuid()}:{os.getegid()}",
            "own": os.geteuid(),
        }
        place = Place(folder, names)
        (folder / "workspace").mkdir()
        (folder / "a-folder").mkdir()
        (folder / "shut").mkdir(mode=0o700)
        (folder / "fixed").mkdir()
        (folder / "fixed").chmod(0o555)
        (folder / "shut").chmod(0o000)
        place.file("good", token())
        place.file("locked", token(), 0o000)
        place.file("empty", "")
        place.file("part", "eyJhbGciOi")
        place.file("other", token(**{"webpubsub.group": ["in.other"]}))
        place.file("expired", token(exp=1_700_000_000))
        place.file("later", token(nbf=3_999_990_000))
        yield place
        (folder / "shut").chmod(0o700)


@dataclass
class Case:
    """`line` is the first one, less time, level and name; braces are names of the place, and
    `...` stands for what differs from run to run."""

    name: str
    environ: dict[str, str | None]
    line: str
    status: int = WAITS
    is_quick: bool = False


def hub(word: str) -> dict[str, str | None]:
    return {"SIDECAR_HUB": f"ws://127.0.0.1:{{port}}/{word}/client/hubs/h"}


def file(name: str) -> dict[str, str | None]:
    return {"SIDECAR_TOKEN_FILE": f"{{folder}}/{name}"}


SECURE = {"SIDECAR_HUB": "wss://127.0.0.1:{tls}/refused/client/hubs/h"}
ELSEWHERE: dict[str, str | None] = {"SIDECAR_HUB": "wss://forbidden.example/client/hubs/h"}
ENDPOINT: dict[str, str | None] = {
    "SIDECAR_TOKEN_FILE": None,
    "SIDECAR_HUB": None,
    "SIDECAR_RUN_TOKEN_FILE": "{folder}/good",
}
REFUSED = "HTTP 401: the hub does not accept this token: its key, its audience or another claim"
WAY_OUT = "replace the token file, or give a token to `sidecar repoint`"
AWAY = "it is waited for, and calls that need it fail meanwhile (hands_away)"

CASES = [
    # Settings -----------------------------------------------------------------------------
    Case(
        "no token",
        {"SIDECAR_TOKEN_FILE": None},
        "no token: set SIDECAR_TOKEN_FILE to a file that holds one (or run `sidecar dev`)",
        78,
        is_quick=True,
    ),
    Case(
        "an unknown setting",
        {"SIDECAR_TOKENFILE": "x", "SIDECAR_TOKEN_FILE": None},
        "SIDECAR_TOKENFILE is not a setting: did you mean SIDECAR_TOKEN_FILE?",
        78,
        is_quick=True,
    ),
    Case(
        "a URL that is no hub's",
        {"SIDECAR_HUB": "https://hub.example"},
        "'https://hub.example' is not a hub: expected wss://HOST/client/hubs/HUB",
        78,
    ),
    Case(
        "a workspace that is not there",
        {"SIDECAR_WORKSPACE": "{folder}/none"},
        "SIDECAR_WORKSPACE is '{folder}/none': not a folder; make it or name another",
        78,
    ),
    Case(
        "a workspace that may not be read",
        {"SIDECAR_WORKSPACE": "{folder}/shut"},
        "SIDECAR_WORKSPACE is '{folder}/shut': we may not read it: {folder}/shut has mode 0000 and"
        " belongs to {us}, we are {us}; give us the right, or name another folder",
        78,
        is_quick=True,
    ),
    # Folders ------------------------------------------------------------------------------
    Case(
        "a workspace that may not be changed",
        {"SIDECAR_WORKSPACE": "{folder}/fixed"},
        "the workspace {folder}/fixed cannot be changed, only read: {folder}/fixed has mode 0555"
        " and belongs to {us}, we are {us}: change its owner or mode, if anything shall change",
        is_quick=True,
    ),
    Case(
        "a state folder in a folder that may not be changed",
        {"SIDECAR_STATE": "{folder}/fixed/state"},
        "the state folder cannot be used: {folder}/fixed/state: Permission denied: {folder}/fixed"
        " has mode 0555 and belongs to {us}, we are {us}; set SIDECAR_STATE to a folder of ours",
        77,
    ),
    Case(
        "a state folder that is a file",
        {"SIDECAR_STATE": "{folder}/good"},
        "the state folder cannot be used: {folder}/good: not a folder; set SIDECAR_STATE to a"
        " folder of ours",
        77,
    ),
    # The token ----------------------------------------------------------------------------
    Case(
        "a token file that is not there",
        file("none"),
        "channel down (no_token): token file {folder}/none: no such file; write it or mount it"
        " there",
        is_quick=True,
    ),
    Case(
        "a token file that may not be read",
        file("locked"),
        "channel down (no_token): token file {folder}/locked: Permission denied: {folder}/locked"
        " has mode 0000 and belongs to {us}, we are {us}; let us read it",
        is_quick=True,
    ),
    Case(
        "an empty token file",
        file("empty"),
        "channel down (no_token): token file {folder}/empty: it is empty; expected a JWT, a client"
        " URL, or JSON with url and token",
    ),
    Case(
        "a folder instead of a token file",
        file("a-folder"),
        "channel down (no_token): token file {folder}/a-folder: it is a folder, as engines make"
        " where what is to be mounted is not; name the file",
    ),
    Case(
        "half a token",
        file("part"),
        "channel down (no_token): token file {folder}/part: it is not a JWT, or not all of one:"
        " three parts with dots expected",
    ),
    Case(
        "a token of another run",
        file("other"),
        "channel down (no_token): token file {folder}/other: it is not for the sidecar of run"
        " 'demo': it joins 'in.other' and not 'in.demo'; mint one for this run, or set SIDECAR_RUN",
    ),
    Case(
        "an expired token",
        hub("refused") | file("expired"),
        f"token refused: HTTP 401: the token expired ... s ago; {WAY_OUT}",
        is_quick=True,
    ),
    Case(
        "a token that the hub refuses",
        hub("refused"),
        f"token refused: {REFUSED} is wrong; {WAY_OUT}",
    ),
    # The clock ----------------------------------------------------------------------------
    Case(
        "a token that begins later",
        hub("refused") | file("later"),
        f"token refused: {REFUSED} is wrong; it begins only in ... s by the clock of this machine;"
        f" {WAY_OUT}",
    ),
    Case(
        "a clock that is ahead, and a refusal",
        hub("ahead"),
        f"token refused: {REFUSED} is wrong; the clock of this machine is 3.0 h ahead of the"
        f" hub's: set it; {WAY_OUT}",
        is_quick=True,
    ),
    Case(
        "a clock that is behind, and a refusal",
        hub("behind"),
        f"token refused: {REFUSED} is wrong; the clock of this machine is 3.0 h behind the hub's:"
        f" set it; {WAY_OUT}",
    ),
    Case(
        "a clock that is ahead, and a hub that takes the token",
        hub("taken-ahead"),
        "the clock of this machine is 3.0 h ahead of the hub's: set it; tokens and the times of"
        " events go by it",
    ),
    # Reaching the hub -----------------------------------------------------------------------
    Case(
        "a port that nobody listens at",
        {"SIDECAR_HUB": "wss://127.0.0.1:{closed}/client/hubs/h"},
        "channel down (network): nobody listens at 127.0.0.1:{closed} (connection refused): check"
        " host and port",
        is_quick=True,
    ),
    Case(
        "a hub that is silent",
        {"SIDECAR_HUB": "ws://127.0.0.1:{silent}/client/hubs/h"},
        "no answer yet from ws://127.0.0.1:{silent}/client/hubs/h: is egress to it allowed, or is a"
        " proxy needed (https_proxy)?",
    ),
    Case(
        "a web page",
        hub("page"),
        "channel down (network): HTTP 200: a web page and no hub; check the URL,"
        " wss://HOST/client/hubs/NAME",
    ),
    Case(
        "no hub of that name",
        hub("none"),
        "channel down (network): HTTP 404: there is no hub of this name; check the URL,"
        " wss://HOST/client/hubs/NAME",
    ),
    Case(
        "a redirect",
        hub("elsewhere"),
        "channel down (network): HTTP 302: the hub is elsewhere, and no redirect is followed; check"
        " the URL",
    ),
    Case(
        "a hub that is down",
        hub("down"),
        "channel down (network): HTTP 503: from the hub, or from a proxy before it; it is tried"
        " again",
    ),
    Case(
        "a self-signed certificate",
        {**SECURE, "SSL_CERT_FILE": None, "SSL_CERT_DIR": None},
        "channel down (network): the certificate of 127.0.0.1:{tls} is not trusted (self-signed"
        " certificate): name a file with its CA in SSL_CERT_FILE; we go by ...",
    ),
    Case(
        "a certificate for another name",
        {
            "SIDECAR_HUB": "wss://127.0.0.2:{tls2}/refused/client/hubs/h",
            "SSL_CERT_FILE": "{pem}",
        },
        "channel down (network): the certificate of 127.0.0.2:{tls2} is not trusted (IP address"
        " mismatch, certificate is not valid for '127.0.0.2'): dial it by the name that is in its"
        " certificate",
    ),
    Case(
        "a certificate that is trusted",
        {**SECURE, "SSL_CERT_FILE": "{pem}"},
        f"token refused: {REFUSED} is wrong; {WAY_OUT}",
        is_quick=True,
    ),
    Case(
        "a file of certificates that is empty",
        {**SECURE, "SSL_CERT_FILE": "{folder}/empty"},
        "SSL_CERT_FILE is '{folder}/empty': it holds no certificate; name a PEM file with the CAs"
        " to trust, or unset it",
        is_quick=True,
    ),
    Case(
        "a file of certificates that is not there",
        {**SECURE, "SSL_CERT_FILE": "{folder}/none"},
        "SSL_CERT_FILE is '{folder}/none': No such file or directory; name a PEM file with the CAs"
        " to trust, or unset it",
    ),
    Case(
        "a port without TLS",
        {"SIDECAR_HUB": "wss://127.0.0.1:{port}/refused/client/hubs/h"},
        "channel down (network): 127.0.0.1:{port} does not speak TLS (...): check the port",
    ),
    Case(
        "a port with TLS, dialled without",
        {"SIDECAR_HUB": "ws://127.0.0.1:{tls}/refused/client/hubs/h"},
        "channel down (network): 127.0.0.1:{tls} does not speak HTTP: no hub, or is it wss://"
        " there?",
    ),
    # A proxy --------------------------------------------------------------------------------
    Case(
        "a proxy that refuses",
        {**ELSEWHERE, "https_proxy": "http://user:hush@127.0.0.1:{port}"},
        "channel down (network): the proxy 127.0.0.1:{port} does not connect us to"
        " forbidden.example:443 (HTTP 403): let it do so",
    ),
    Case(
        "a proxy that wants a password",
        {
            "SIDECAR_HUB": "wss://secret.example/client/hubs/h",
            "https_proxy": "http://127.0.0.1:{port}",
        },
        "channel down (network): the proxy 127.0.0.1:{port} does not connect us to"
        " secret.example:443 (HTTP 407): it wants https_proxy=http://NAME:PASSWORD@HOST:PORT",
    ),
    Case(
        "a proxy that is not there",
        {**ELSEWHERE, "https_proxy": "http://user:hush@127.0.0.1:{closed}"},
        "channel down (network): nobody listens at the proxy 127.0.0.1:{closed} (connection"
        " refused): check host and port",
    ),
    Case(
        "a proxy that makes no sense",
        {**ELSEWHERE, "https_proxy": "gopher://user:hush@127.0.0.1:1"},
        "channel down (network): the proxy of the environment makes no sense (https_proxy,"
        " all_proxy); http://HOST:PORT expected",
    ),
    # The endpoint ---------------------------------------------------------------------------
    Case(
        "an endpoint that nobody serves",
        {**ENDPOINT, "SIDECAR_ENDPOINT": "http://127.0.0.1:{closed}/p"},
        "channel down (network): the endpoint: nobody listens at 127.0.0.1:{closed} (connection"
        " refused): check host and port",
    ),
    Case(
        "an endpoint that is not trusted",
        {
            **ENDPOINT,
            "SIDECAR_ENDPOINT": "https://127.0.0.2:{tls2}/p",
            "SSL_CERT_FILE": "{pem}",
        },
        "channel down (network): the endpoint: the certificate of 127.0.0.2:{tls2} is not trusted"
        " (IP address mismatch, certificate is not valid for '127.0.0.2'): dial it by the name that"
        " is in its certificate",
    ),
    Case(
        "an endpoint that is elsewhere",
        {**ENDPOINT, "SIDECAR_ENDPOINT": "http://127.0.0.1:{port}/none"},
        "channel down (network): HTTP 404 from the endpoint, or from a proxy before it: check the"
        " path of its URL",
    ),
    Case(
        "a run token that may not be read",
        {
            **ENDPOINT,
            "SIDECAR_RUN_TOKEN_FILE": "{folder}/locked",
            "SIDECAR_ENDPOINT": "http://127.0.0.1:{port}/none",
        },
        "channel down (no_token): run token: {folder}/locked: Permission denied: {folder}/locked"
        " has mode 0000 and belongs to {us}, we are {us}; let us read it",
    ),
    # Hands ----------------------------------------------------------------------------------
    Case(
        "no hands",
        {"SIDECAR_HANDS": "{folder}/none"},
        "no hands at {folder}/none yet: start `sidecar hands --socket {folder}/none`; " + AWAY,
        is_quick=True,
    ),
    Case(
        "a hands that is not ours to dial",
        {"SIDECAR_HANDS": "{folder}/shut.sock"},
        "hands at {folder}/shut.sock may not be dialled by us: {folder}/shut.sock has mode 0000 and"
        " belongs to {us}, we are {us}; give `sidecar hands` our uid, --core-uid {own}; " + AWAY,
    ),
    Case(
        "a hands that is no socket",
        {"SIDECAR_HANDS": "{folder}/good"},
        "hands at {folder}/good: that is no socket; name the one of `sidecar hands`; " + AWAY,
    ),
]


def start(place: Place, environ: dict[str, str | None]) -> subprocess.Popen[str]:
    """`sidecar run` without root's privileges, with settings that would do but for `environ`."""
    state = place.folder / "state"
    state.mkdir(mode=0o700, exist_ok=True)
    common: dict[str, str | None] = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path(sidecar.__path__[0]).parent),
        "SIDECAR_RUN": "demo",
        "SIDECAR_HUB": "ws://127.0.0.1:{port}/refused/client/hubs/h",
        "SIDECAR_TOKEN_FILE": "{folder}/good",
        "SIDECAR_WORKSPACE": "{folder}/workspace",
        "SIDECAR_STATE": str(state),
        "SIDECAR_DRAIN": "0",
    }
    prefix = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    return subprocess.Popen(
        [*prefix, sys.executable, "-m", "sidecar", "run"],
        env={k: v.format(**place.names) for k, v in (common | environ).items() if v is not None},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def read_line(child: subprocess.Popen[str]) -> tuple[str, str]:
    """The next line, and who says it: a logger, or the verb itself where it fails."""
    assert child.stderr is not None
    timer = threading.Timer(TIME, child.kill)
    timer.start()
    line = child.stderr.readline().rstrip("\n")
    timer.cancel()
    found = re.fullmatch(r"(?:\d{4}-\d\d-\d\dT\S+Z (?:info|warning|error) )?([\w. ]+): (.*)", line)
    assert found is not None, line
    return found[2], found[1]


def wait_until_it_dials(child: subprocess.Popen[str], said_by: str) -> None:
    """What is said before the first dial is said before it can be told to end in order."""
    while said_by in ("sidecar.startup", "sidecar.certificates"):
        said_by = read_line(child)[1]


def end(child: subprocess.Popen[str], *, waits: bool) -> int:
    """Its exit status: by itself, or when it is told to end while it serves."""
    try:
        if waits:
            child.send_signal(signal.SIGTERM)
        return child.wait(TIME)
    finally:
        child.kill()
        assert child.stderr is not None
        child.stderr.close()


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.name, marks=[] if case.is_quick else [pytest.mark.slow])
        for case in CASES
    ],
)
def test_the_first_line_says_what_is_wrong(case: Case, place: Place) -> None:
    with socket.socket(socket.AF_UNIX) as shut:
        path = place.folder / "shut.sock"
        shut.bind(str(path))
        path.chmod(0o000)
        try:
            child = start(place, case.environ)
            line, said_by = read_line(child)
            wait_until_it_dials(child, said_by)
            status = end(child, waits=case.status == WAITS)
        finally:
            path.unlink()
    expected = re.escape(case.line.format(**place.names)).replace(re.escape("..."), ".+")
    assert re.fullmatch(expected, line), line
    assert status == case.status
    assert "hush" not in line
