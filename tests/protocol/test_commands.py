"""The catalogue: what arguments are well-formed, and how a wrong one is explained."""

from __future__ import annotations

import re

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import Invalid
from sidecar.protocol import commands
from sidecar.protocol.commands import CATALOGUE, Effect, ExecRun, FilesRead, FilesWrite
from sidecar.protocol.effects import REPEATABLE


def parse(name: str, arguments: object) -> commands.Arguments:
    return CATALOGUE[name].parse(cbor2.dumps(arguments))


def test_the_table_in_the_docstring_is_the_catalogue() -> None:
    rows = re.findall(
        r"^    ([a-z]+\.[a-z_]+) +(read|write|exec|admin) ", commands.__doc__ or "", re.M
    )
    assert dict(rows) == {name: str(command.effect) for name, command in CATALOGUE.items()}


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_command_is_known_by_its_name(name: str) -> None:
    assert CATALOGUE[name].name == name


def test_what_only_reads_may_be_repeated() -> None:
    reading = {name for name, c in CATALOGUE.items() if c.effect is Effect.READ}
    assert reading - REPEATABLE == {"exec.attach"}  # it may bring input


@pytest.mark.parametrize(
    "name, arguments",
    [
        ("sidecar.info", {}),
        ("sidecar.ping", {"payload": b"x"}),
        ("exec.run", {"argv": ["true", b"\xff"]}),
        ("exec.run", {"shell": "exit 3", "cwd": b"caf\xe9", "env": {"A": "1"}, "unset": ["B"]}),
        ("exec.run", {"argv": ["cat"], "stdin": "stream", "timeout": 5, "grace": 0}),
        ("exec.run", {"argv": ["cat"], "stdin": b"\x00", "timeout": 0.5, "on_full": "hold"}),
        ("files.read", {"path": "a", "offset": 5, "length": 0, "inline": False}),
        ("files.write", {"path": b"a", "content": b"", "mode": 0o644, "sha256": b"d" * 32}),
        ("files.list", {"after": "x", "limit": 10}),
        ("files.stat", {"path": "a", "follow": True}),
        ("files.mkdir", {"path": "a", "parents": True, "exist_ok": True, "mode": 0o700}),
        ("files.move", {"source": "a", "target": "b", "replace": False}),
        ("files.remove", {"path": "a", "recursive": True}),
    ],
)
def test_well_formed_arguments_are_accepted(name: str, arguments: dict[str, object]) -> None:
    parsed = parse(name, arguments)
    assert {key: getattr(parsed, key) for key in arguments} == arguments


def test_defaults_are_the_careful_ones() -> None:
    run = parse("exec.run", {"argv": ["true"]})
    assert isinstance(run, ExecRun)
    assert (run.stdin, run.timeout, run.grace, run.on_full) == ("none", None, 5.0, "drop")
    read = parse("files.read", {"path": "a"})
    assert isinstance(read, FilesRead)
    assert (read.offset, read.length, read.inline) == (0, None, True)
    write = parse("files.write", {"path": "a"})
    assert isinstance(write, FilesWrite)
    assert (write.content, write.sha256, write.parents) == (None, None, False)


@pytest.mark.parametrize(
    "name, arguments, sentence",
    [
        ("exec.run", {}, "exactly one of argv and shell is expected"),
        ("exec.run", {"argv": ["a"], "shell": "a"}, "exactly one of argv and shell"),
        ("exec.run", {"argv": []}, "argv: List should have at least 1 item"),
        ("exec.run", {"argv": "true"}, "argv: Input should be a valid list"),
        ("exec.run", {"argv": ["a"], "timout": 5}, "timout: Extra inputs are not permitted"),
        ("exec.run", {"argv": ["a"], "timeout": 0}, "timeout: Input should be greater than 0"),
        ("exec.run", {"argv": ["a"], "timeout": "5"}, "timeout: Input should be a valid number"),
        ("exec.run", {"argv": ["a"], "timeout": float("nan")}, "timeout: "),
        ("exec.run", {"argv": ["a"], "timeout": float("inf")}, "timeout: "),
        ("exec.run", {"argv": ["a"], "grace": 61}, "grace: "),
        ("exec.run", {"argv": ["a"], "live": 1}, "live: Input should be a valid boolean"),
        ("exec.run", {"argv": ["a"], "env": {"A": 1}}, "env.A: Input should be a valid string"),
        ("exec.run", {"argv": ["a"], "stdin": "maybe"}, "stdin"),
        ("files.read", {}, "exactly one of path and paths is expected"),
        ("files.read", {"path": "a", "offset": -1}, "offset: "),
        ("files.read", {"path": "a", "offset": 1 << 63}, "offset: "),
        ("files.read", {"path": "a", "offset": True}, "offset: "),
        ("files.read", {"path": "a" * 8193}, "path"),
        ("files.write", {"path": "a", "sha256": b"short"}, "sha256: "),
        ("files.write", {"path": "a", "mode": 0o10000}, "mode: "),
        ("files.write", {"path": "a", "content": b"x" * 65_537}, "content: "),
        ("files.list", {"limit": 0}, "limit: "),
        ("sidecar.info", {"x": 1}, "x: Extra inputs"),
        ("sidecar.ping", {"payload": "text"}, "payload: Input should be a valid bytes"),
    ],
)
def test_a_wrong_argument_is_named(name: str, arguments: dict[str, object], sentence: str) -> None:
    with pytest.raises(Invalid, match=f"^invalid: {name}: ") as caught:
        parse(name, arguments)
    assert sentence in caught.value.message


@pytest.mark.parametrize(
    "raw, sentence",
    [
        (b"", "the arguments are broken CBOR"),
        (b"\x80", "arguments are a map, got list"),
        (b"\xa0\x00", "the arguments are 1 bytes after the end of a CBOR value"),
        (b"\xc1\x00", "the arguments are broken CBOR: a CBOR tag, none is expected here"),
        (b"\xa1\x01\x02", "sidecar.info: "),
    ],
)
def test_what_is_no_map_of_names_is_refused(raw: bytes, sentence: str) -> None:
    with pytest.raises(Invalid) as caught:
        CATALOGUE["sidecar.info"].parse(raw)
    assert sentence in caught.value.message


def test_a_wrong_value_is_never_repeated() -> None:
    with pytest.raises(Invalid) as caught:
        parse("exec.run", {"argv": ["a"], "env": {"TOKEN": [b"hunter2"]}, "on_full": "hunter2"})
    assert "hunter2" not in caught.value.message


def test_many_wrong_arguments_make_a_short_sentence() -> None:
    with pytest.raises(Invalid) as caught:
        parse("sidecar.info", {f"unknown-{n}": n for n in range(1000)})
    assert len(caught.value.message) < 400


@given(name=st.sampled_from(sorted(CATALOGUE)), raw=st.binary(max_size=60))
def test_any_bytes_are_arguments_or_invalid(name: str, raw: bytes) -> None:
    try:
        assert isinstance(CATALOGUE[name].parse(raw), commands.Arguments)
    except Invalid:
        return


def test_what_is_repeatable_is_in_the_catalogue_and_changes_nothing() -> None:
    assert all(CATALOGUE[name].effect is Effect.READ for name in REPEATABLE)
