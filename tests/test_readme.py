"""What README.md points at is there: files, tests, lines of the demo, modules, commands.

Its two commands are held in tests/test_house.py, its client is run in tests/test_examples.py.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sidecar.cli.demo import NAMES
from sidecar.cli.main import VERBS

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
ROWS = re.findall(r"^\| \d \| (.+?) \|", TEXT, re.MULTILINE)


def found(pattern: str) -> list[str]:
    """What the group of `pattern` matches, each once; the test fails if that is nothing."""
    matches = sorted(set(re.findall(pattern, TEXT)))
    assert matches, f"README.md has no {pattern!r} any more"
    return matches


@pytest.mark.parametrize("target", found(r"\]\(([^)]+)\)"))
def test_a_link_leads_somewhere(target: str) -> None:
    assert (ROOT / target).exists()


@pytest.mark.parametrize("command", found(r"`pytest ([^`]+)`"))
def test_a_test_that_is_named_exists(command: str) -> None:
    path, _, word = command.partition(" -k ")
    assert re.search(rf"^(?:async )?def test_\w*{word}", (ROOT / path).read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", found(r"`sidecar demo --only (\w+)`"))
def test_a_line_of_the_demo_that_is_named_exists(name: str) -> None:
    assert name in NAMES


@pytest.mark.parametrize("verb", found(r"(?:`|bin/|\$\()sidecar (\w+)"))
def test_a_verb_that_is_named_exists(verb: str) -> None:
    assert verb in VERBS


def test_the_map_names_modules_that_exist() -> None:
    modules = [name for row in ROWS for name in re.findall(r"`(\w+)`", row)]
    assert len(modules) >= 16
    for name in modules:
        assert (ROOT / "sidecar" / name).is_dir() or (ROOT / "sidecar" / f"{name}.py").is_file()
