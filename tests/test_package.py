"""What people install: `python -m build` makes it in one command, and it works by itself.

Built here without isolation, by the hatchling of the tests' environment, so that the network is
needed for nothing but the dependencies of the wheel.
"""

from __future__ import annotations

import email
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import sidecar

ROOT = Path(__file__).parent.parent
STEM = f"sandbox_sidecar-{sidecar.__version__}"
WHEEL = f"{STEM}-py3-none-any.whl"

pytestmark = pytest.mark.slow


def run(*words: str | Path, cwd: Path, timeout: float = 60) -> str:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        words, cwd=cwd, env=environ, capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(target: Path, *flags: str) -> Path:
    run(sys.executable, "-m", "build", "--no-isolation", *flags, "-o", target, ROOT, cwd=ROOT)
    return target


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with what the one command makes: the sdist, and the wheel that is built of it."""
    return build(tmp_path_factory.mktemp("dist"))


def files_in(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_one_command_makes_both(built: Path) -> None:
    assert {path.name for path in built.iterdir()} == {f"{STEM}.tar.gz", WHEEL}


@pytest.mark.optional
def test_the_sdist_holds_what_the_repository_does_and_nothing_else(built: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("an unpacked archive tracks nothing")
    known = run(
        "git",
        "-c",
        "safe.directory=*",
        "ls-files",
        "-z",
        "-c",
        "-o",
        "--exclude-standard",
        cwd=ROOT,
    )
    expected = {name for name in known.split("\0") if (ROOT / name).is_file()}
    with tarfile.open(built / f"{STEM}.tar.gz") as archive:
        names = {name.removeprefix(f"{STEM}/") for name in archive.getnames()}
    assert names == expected | {"PKG-INFO"}


def test_the_wheel_of_the_sdist_is_the_wheel_of_the_tree(built: Path, tmp_path: Path) -> None:
    assert files_in(built / WHEEL) == files_in(build(tmp_path, "--wheel") / WHEEL)


def test_the_wheel_holds_the_package_its_types_and_its_wire_format(built: Path) -> None:
    names = set(files_in(built / WHEEL))
    folder = f"{STEM}.dist-info"
    assert {"sidecar/py.typed", "sidecar/protocol/wire.cddl", "sidecar/__main__.py"} <= names
    assert {name.partition("/")[0] for name in names} == {"sidecar", folder}
    assert {Path(name).suffix for name in names if not name.startswith(folder)} == {
        ".py",
        ".typed",
        ".cddl",
    }


def test_the_wheel_says_what_it_needs(built: Path) -> None:
    files = files_in(built / WHEEL)
    about = email.message_from_bytes(files[f"{STEM}.dist-info/METADATA"])
    assert about["Requires-Python"] == ">=3.11"
    assert about["License-Expression"] == "Apache-2.0"
    needed = [Requirement(line) for line in about.get_all("Requires-Dist", [])]
    assert {need.name for need in needed if need.marker is None} == {
        "anyio",
        "cbor2",
        "certifi",
        "click",
        "httpx",
        "pydantic",
        "rich",
        "websockets",
    }
    script = files[f"{STEM}.dist-info/entry_points.txt"].decode()
    assert "sidecar = sidecar.__main__:main" in script


@pytest.mark.timeout(240)
def test_the_wheel_in_a_fresh_environment_passes_the_demo(built: Path, tmp_path: Path) -> None:
    """With nothing of this tree in reach: neither as the working folder nor on a path."""
    fresh = tmp_path / "fresh"
    run(sys.executable, "-m", "venv", fresh, cwd=tmp_path)
    run(fresh / "bin/pip", "install", "-q", f"{built / WHEEL}[dev]", cwd=tmp_path, timeout=120)
    where = run(fresh / "bin/python", "-c", "import sidecar; print(sidecar.__file__)", cwd=tmp_path)
    assert Path(where).is_relative_to(fresh)
    assert run(fresh / "bin/sidecar", "--version", cwd=tmp_path).split()[-1] == sidecar.__version__
    run(fresh / "bin/sidecar", "demo", cwd=tmp_path, timeout=100)
