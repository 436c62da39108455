"""Rules of the house that no tool checks for us: sizes, heads of files, what is tracked."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
from pathlib import Path

import pytest
from packaging.version import Version

import sidecar

ROOT = Path(__file__).parent.parent
MODULES = sorted(ROOT.glob("sidecar/**/*.py"))
LINES_AT_MOST = 400

every_module = pytest.mark.parametrize(
    "path", [pytest.param(path, id=str(path.relative_to(ROOT))) for path in MODULES]
)


@every_module
def test_no_module_outgrows_its_reader(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= LINES_AT_MOST, "make it a package with the same import path"


@every_module
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


def faults_of_surface(names: list[str], module: object) -> list[str]:
    """What is wrong with the public names `names` of `module`; nothing is an empty list."""
    faults = [f"{name} does not exist" for name in names if not hasattr(module, name)]
    if names != sorted(set(names), key=str.casefold):
        faults.append("not sorted, or not unique")
    return faults


@every_module
def test_every_declared_surface_is_sorted_and_exists(path: Path) -> None:
    if "__all__" not in path.read_text():
        return
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    module = importlib.import_module(name)
    assert faults_of_surface(module.__all__, module) == []


def test_the_check_of_surfaces_finds_faults() -> None:
    assert faults_of_surface(["call", "Popen"], importlib.import_module("subprocess")) == []
    assert faults_of_surface(["PurePath", "Path", "Gone"], importlib.import_module("pathlib")) == [
        "Gone does not exist",
        "not sorted, or not unique",
    ]


def test_the_version_can_be_published() -> None:
    assert str(Version(sidecar.__version__)) == sidecar.__version__


def test_the_changelog_is_open_for_the_next_version() -> None:
    sections = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert sections[0] == "Unreleased"
    assert sections[1:] == sorted(sections[1:], key=lambda title: Version(title.split()[0]))[::-1]


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "sidecar/py.typed").is_file()


def tracked_files() -> list[Path]:
    # A checkout may belong to somebody else, as in a container; git then wants to be told.
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = [ROOT / name for name in names.split("\0") if name]
    return [path for path in paths if path.is_file()]


@pytest.mark.optional
def test_nothing_tracked_points_at_one_machine() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("an unpacked archive tracks nothing")
    place = f"{ROOT}/".encode()  # where it was written; nobody else has it there
    found = [path.relative_to(ROOT) for path in tracked_files() if place in path.read_bytes()]
    assert found == []


def marked_command(name: str) -> str:
    """The one line that README.md shows under the comment `name`, as `.ci/run` reads it."""
    fence = re.compile(rf"<!-- {name} -->\s*```sh\n(.+)\n```", re.MULTILINE)
    [command] = fence.findall((ROOT / "README.md").read_text())
    return str(command)


def test_the_readme_shows_the_commands_that_ci_runs() -> None:
    assert marked_command("main-command").endswith(" .venv/bin/sidecar demo")
    assert marked_command("test-command") == (
        "python3 -m venv .venv && .venv/bin/pip install -q -e '.[test]' && .venv/bin/pytest"
    )
