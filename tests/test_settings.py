"""Settings: every knob from the environment, and every mistake told at once."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from sidecar.errors import SettingsError
from sidecar.settings import Settings, load, variable

GOOD = {"SIDECAR_RUN": "demo", "SIDECAR_TOKEN_FILE": "/run/token"}


def test_the_least_that_is_needed() -> None:
    settings = load(GOOD)
    assert (settings.run, settings.token_file, settings.workspace) == ("demo", "/run/token", ".")


def test_flags_go_before_the_environment_and_that_before_defaults() -> None:
    environ = {**GOOD, "SIDECAR_DRAIN": "1.5", "SIDECAR_GENERATION": "7"}
    settings = load(environ, drain=3.0, hub=None)
    assert (settings.drain, settings.generation, settings.hub) == (3.0, 7, "")


@pytest.mark.parametrize("text, value", [("1", True), ("yes", True), ("ON", True), ("0", False)])
def test_yes_and_no(text: str, value: bool) -> None:
    assert load({**GOOD, "SIDECAR_INSECURE": text}).insecure is value


@pytest.mark.parametrize(
    "text, value",
    [
        ("0", 0),
        ("512", 512),
        ("64k", 65_536),
        ("1.5M", 1_572_864),
        ("2G", 2 << 30),
        ("1T", 1 << 40),
    ],
)
def test_sizes(text: str, value: int) -> None:
    assert load({**GOOD, "SIDECAR_EGRESS_RUN": text}).egress_run == value
    assert load(GOOD, egress_call=text).egress_call == value


def test_with_a_hands_of_its_own_the_workspace_and_the_roots_are_elsewhere() -> None:
    there = {"SIDECAR_WORKSPACE": "/no/such/folder", "SIDECAR_ROOTS": "/no/other"}
    elsewhere = {**GOOD, **there, "SIDECAR_HANDS": "/run/hands"}
    assert load(elsewhere).hands == "/run/hands"


ENDPOINT = {"SIDECAR_TOKEN_FILE": "", "SIDECAR_ENDPOINT": "https://platform.example"}

MISTAKES = [
    (ENDPOINT, "no run token: set SIDECAR_RUN_TOKEN_FILE"),
    ({"SIDECAR_ENDPOINT": "https://p.example", "SIDECAR_RUN_TOKEN": "r"}, "take SIDECAR_TOKEN"),
    ({"SIDECAR_RUN_TOKEN": "r"}, "SIDECAR_ENDPOINT is missing"),
    ({"SIDECAR_RUN_TOKEN_FILE": "/run/t"}, "SIDECAR_ENDPOINT is missing"),
    ({"SIDECAR_HANDOVER": "sometimes"}, "auto, always or never"),
    ({"SIDECAR_HANDS": "x" * 108}, "SIDECAR_HANDS is longer than 107 bytes"),
    ({"SIDECAR_RUN": "a.b"}, "SIDECAR_RUN"),
    ({"SIDECAR_RUN": ""}, "SIDECAR_RUN is missing"),
    ({"SIDECAR_TOKEN_FILE": ""}, "no token"),
    ({"SIDECAR_TOKEN_FILE": "", "SIDECAR_TOKEN": "eyJ"}, "SIDECAR_HUB is missing"),
    ({"SIDECAR_DRAIN": "long"}, "SIDECAR_DRAIN: 'long' is not a number"),
    ({"SIDECAR_DRAIN": "-1"}, "SIDECAR_DRAIN is -1.0"),
    ({"SIDECAR_DRAIN": "nan"}, "SIDECAR_DRAIN is nan"),
    ({"SIDECAR_DRAIN": "inf"}, "SIDECAR_DRAIN is inf"),
    ({"SIDECAR_GENERATION": "1.5"}, "SIDECAR_GENERATION"),
    ({"SIDECAR_GENERATION": "-1"}, "SIDECAR_GENERATION is -1: a count expected"),
    ({"SIDECAR_EGRESS_CALL": "lots"}, "SIDECAR_EGRESS_CALL: 'lots' is no size"),
    ({"SIDECAR_EGRESS_RUN": "-1"}, "SIDECAR_EGRESS_RUN: '-1' is no size"),
    ({"SIDECAR_EGRESS_RUN": "9999999999T"}, "SIDECAR_EGRESS_RUN is"),
    ({"SIDECAR_INSECURE": "maybe"}, "neither yes nor no"),
    ({"SIDECAR_ENVIRONMENT": "dirty"}, "clean or inherited"),
    ({"SIDECAR_SUBPROTOCOL": "xml"}, "protobuf or json"),
    ({"SIDECAR_LOG_LEVEL": "loud"}, "SIDECAR_LOG_LEVEL"),
    ({"SIDECAR_WORKSPACE": "/no/such/folder"}, "not a folder"),
    ({"SIDECAR_ROOTS": "/no/such/folder:ro"}, "SIDECAR_ROOTS: '/no/such/folder' is not a folder"),
    ({"SIDECAR_CGROUP": "/no/such/folder"}, "no cgroup v2 folder that we may write to"),
    ({"SIDECAR_HANDS": "/" + 107 * "h"}, "SIDECAR_HANDS is longer than 107 bytes"),
    (
        {"SIDECAR_WORKSPCE": "/tmp"},
        "SIDECAR_WORKSPCE is not a setting: did you mean SIDECAR_WORKSPACE?",
    ),
    ({"SIDECAR_TOKENFILE": "x"}, "SIDECAR_TOKENFILE is not a setting: did you mean SIDECAR_TOKEN_"),
    ({"SIDECAR_QQQ": "x"}, "SIDECAR_QQQ is not a setting; `sidecar run --help` lists them"),
    ({"SIDECAR_PORT": "many"}, "SIDECAR_PORT is not a setting"),
]


@pytest.mark.parametrize("environ, message", MISTAKES)
def test_a_mistake_is_named(environ: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({**GOOD, **environ})
    assert message in str(caught.value)


def test_what_kubernetes_says_of_services_is_no_mistake() -> None:
    links = {
        "SIDECAR_SERVICE_HOST": "10.0.0.11",
        "SIDECAR_SERVICE_PORT": "80",
        "SIDECAR_SERVICE_PORT_HTTP": "80",
        "SIDECAR_PORT": "tcp://10.0.0.11:80",
        "SIDECAR_PORT_80_TCP_ADDR": "10.0.0.11",
        "SIDECAR_CONTROL_SERVICE_HOST": "10.0.0.12",
    }
    assert load({**GOOD, **links}) == load(GOOD)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        load({"SIDECAR_DRAIN": "x", "SIDECAR_LOG_LEVEL": "y"})
    assert len(str(caught.value).splitlines()) == 4


def test_a_token_is_never_shown() -> None:
    settings = load({**GOOD, "SIDECAR_TOKEN": "wss://h/client/hubs/x?access_token=secret"})
    assert "secret" not in repr(settings)
    settings = load({**GOOD, **ENDPOINT, "SIDECAR_RUN_TOKEN": "secret"})
    assert "secret" not in repr(settings)


def test_every_knob_has_a_sentence() -> None:
    for item in fields(Settings):
        assert item.metadata["help"].endswith("."), variable(item.name)


def test_the_state_folder_is_as_set_or_one_of_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load({**GOOD, "SIDECAR_STATE": "/var/x"}).state_folder == Path("/var/x")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert load(GOOD).state_folder == Path("/run/user/1000/sidecar/demo")
