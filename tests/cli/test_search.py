"""`sidecar search`: what it prints, and how it ends, as of grep."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
from console import Console


@pytest.fixture(autouse=True)
def there(dev):
    for path in dev.folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (dev.folder / "src").mkdir()
    (dev.folder / "src/a.py").write_bytes(b"one\ntwo foo\nthree\nfour\nfive\nsix FOO\n")
    (dev.folder / "src/b.js").write_bytes(b"\tfoo \xff\n")
    (dev.folder / "src/c.log").write_bytes(b"foo\n")
    (dev.folder / ".gitignore").write_bytes(b"*.log\n")
    return dev.folder


@pytest.mark.slow  # each starts a program
@pytest.mark.parametrize(
    "arguments, output",
    [
        (["foo"], b"src/a.py:2:two foo\nsrc/b.js:1:\tfoo \xff\n"),
        (["foo", "src/a.py"], b"src/a.py:2:two foo\n"),
        (["-i", "FOO$", "src"], b"src/a.py:2:two foo\nsrc/a.py:6:six FOO\n"),
        (["-F", "o.", "."], b""),
        (["foo", "-g", "*.js"], b"src/b.js:1:\tfoo \xff\n"),
        (["foo", "--exclude", "*.js"], b"src/a.py:2:two foo\n"),
        (["foo", "--no-ignore", "-g", "*.log"], b"src/c.log:1:foo\n"),
        (
            ["-i", "-C", "1", "foo", "src/a.py"],
            b"src/a.py-1-one\nsrc/a.py:2:two foo\nsrc/a.py-3-three\n--\n"
            b"src/a.py-5-five\nsrc/a.py:6:six FOO\n",
        ),
        (["-B1", "-A", "0", "two"], b"src/a.py-1-one\nsrc/a.py:2:two foo\n"),
    ],
)
def test_lines_are_printed_as_grep_prints_them(arguments, output, sidecar) -> None:
    done = sidecar("search", *arguments)
    assert (done.stdout, done.stderr) == (output, b"")
    assert done.returncode == (0 if output else 1)


def test_json_has_one_object_a_line(sidecar) -> None:
    done = sidecar("search", "--json", "foo")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"path": "src/a.py", "line": 2, "column": 5, "text": "two foo", "cut": False},
        {"path": "src/b.js", "line": 1, "column": 2, "text": {"base64": "CWZvbyD/"}, "cut": False},
    ]


def test_what_goes_wrong_is_2(sidecar) -> None:
    done = sidecar("search", "a(b")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"sidecar: invalid: the pattern: ")
    assert b"position 1" in done.stderr
    assert sidecar("search", "foo", "gone").returncode == 2
    assert sidecar("search", "foo", "--run", "nobody").returncode == 2


def test_more_than_wanted_is_told_on_the_side(sidecar) -> None:
    done = sidecar("search", "--limit", "1", "foo")
    assert (done.returncode, done.stdout) == (0, b"src/a.py:2:two foo\n")
    assert (
        done.stderr == b"sidecar: there are more matches than --limit 1, which may be up to 10000\n"
    )


def test_a_terminal_gets_colours_and_no_control_characters(sidecar, there) -> None:
    (there / "src/b.js").write_bytes(b"\tfoo \x1b[31m\n")
    program = [sys.executable, "-m", "sidecar", "search", "foo", "src/b.js"]
    with Console(program, sidecar.environ) as console:
        assert console.ends() == 0
        assert console.text == "src/b.js:1:        foo \N{REPLACEMENT CHARACTER}[31m"
    assert b"\x1b[35msrc/b.js\x1b[m" in console.raw_output
    with Console(program, {**sidecar.environ, "NO_COLOR": "1"}) as console:
        assert console.ends() == 0
    assert b"\x1b[35m" not in console.raw_output
