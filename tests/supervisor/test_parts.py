"""What core, hands and the command are started with."""

from __future__ import annotations

import sys
from dataclasses import fields

from sidecar.cli import hands
from sidecar.settings import Settings, load, variable
from sidecar.supervisor.accounts import Account
from sidecar.supervisor.parts import FOR_HANDS, programs_of
from sidecar.supervisor.supervision import Part

CORE = Account(10001, 10001, [10001], "10001", "/")
AGENT = Account(1000, 1000, [1000, 7], "node", "/home/node")

OWN = {
    "PATH": "/bin",
    "HOME": "/root",
    "HTTPS_PROXY": "http://proxy",
    "SIDECAR_RUN": "demo",
    "SIDECAR_HUB": "wss://hub/client/hubs/h",
    "SIDECAR_TOKEN_FILE": "/run/token",
    "SIDECAR_WORKSPACE": "/work",
    "SIDECAR_LOG_LEVEL": "debug",
    "SIDECAR_CORE_USER": "10001",
    "SIDECAR_AGENT_USER": "node",
    "SIDECAR_GRACE": "9",
    "SIDECAR_NEW_PRIVILEGES": "no",
}


def programs(*command: str, new_privileges: bool = False):
    return programs_of(
        OWN,
        core=CORE,
        agent=AGENT,
        socket="/meet/s",
        command=list(command),
        new_privileges=new_privileges,
    )


def test_hands_is_started_first_and_the_command_last() -> None:
    assert list(programs("true")) == [Part.HANDS, Part.CORE, Part.COMMAND]
    assert list(programs()) == [Part.HANDS, Part.CORE]


def test_core_has_settings_that_it_can_load() -> None:
    core = programs()[Part.CORE]
    assert core.account is CORE
    assert core.argv[-3:] == ["-m", "sidecar", "run"]
    assert core.environment == {
        "PATH": "/bin",
        "HOME": "/",
        "USER": "10001",
        "LOGNAME": "10001",
        "HTTPS_PROXY": "http://proxy",
        "SIDECAR_RUN": "demo",
        "SIDECAR_HUB": "wss://hub/client/hubs/h",
        "SIDECAR_TOKEN_FILE": "/run/token",
        "SIDECAR_WORKSPACE": "/work",
        "SIDECAR_LOG_LEVEL": "debug",
        "SIDECAR_HANDS": "/meet/s",
        "SIDECAR_STATE": "/var/lib/sidecar",
    }
    assert load(core.environment).hands == "/meet/s"


def test_hands_has_what_it_goes_by_and_no_way_to_a_token() -> None:
    started = programs("sh")[Part.HANDS]
    assert started.account is AGENT
    assert started.argv[-5:] == ["hands", "--socket", "/meet/s", "--core-uid", "10001"]
    assert started.environment == {
        "PATH": "/bin",
        "HOME": "/home/node",
        "USER": "node",
        "LOGNAME": "node",
        "HTTPS_PROXY": "http://proxy",
        "SIDECAR_WORKSPACE": "/work",
        "SIDECAR_LOG_LEVEL": "debug",
    }


def test_the_command_has_nothing_of_ours_but_our_files() -> None:
    command = programs("sh", "-c", "true")[Part.COMMAND]
    assert command.account is AGENT
    assert command.argv == ["sh", "-c", "true"]
    assert [name for name in command.environment if name.startswith("SIDECAR_")] == []
    assert command.environment["HOME"] == "/home/node"
    assert [part.attended for part in programs("true").values()] == [False, False, True]


def test_core_never_gets_new_privileges() -> None:
    allowed = {
        part: program.new_privileges
        for part, program in programs("true", new_privileges=True).items()
    }
    assert allowed == {Part.HANDS: True, Part.CORE: False, Part.COMMAND: True}


def test_code_is_not_sought_where_the_agent_may_write() -> None:
    assert programs()[Part.CORE].argv[:2] == [sys.executable, "-sP"]


def test_the_settings_of_hands_are_all_passed_on() -> None:
    known = set(hands._VARIABLES.values()) - {"SIDECAR_HANDS"}
    assert known == set(FOR_HANDS)
    assert known <= {variable(item.name) for item in fields(Settings)}
