"""What is left out of a walk, compared with what git itself leaves out."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from sidecar.errors import CallError, Code
from sidecar.hands.fileinterface import Selection
from sidecar.hands.local.roots import Roots
from sidecar.hands.local.walk import ignorefiles
from sidecar.hands.local.walk.namelists import read_names
from sidecar.hands.local.walk.walking import walk

GIT = Selection(ignore="git")
NAMES = [b"a", b"b", b"ab", b"a.b", b"foo.o", b"#x", b"!x", b"x ", b"x\t", b"a\nb", b"\xc3\xa0"]
NAMES += [b"\xff", b"[a]", b"a*", b"\\a", b"-", b"]", b"^a", b"A", b".a"]
PATTERNS = [b"a", b"a/", b"/a", b"a/b", b"*", b"*.o", b"a*", b"?", b"[ab]", b"[!a]", b"[^a]"]
PATTERNS += [b"[a-]", b"[]]", b"[]-a]", b"[[:alpha:]]", b"[[:upper:]]b", b"[[:no:]]", b"**"]
PATTERNS += [b"**/a", b"a/**", b"a/**/b", b"**/", b"*/", b"*/a", b"!a", b"!a/", b"!*/", b"\\#x"]
PATTERNS += [b"\\!x", b"#x", b"x\\ ", b"x ", b"x\t", b"\xc3\xa0", b"\xc3?", b"?\xa0", b"\xff"]
PATTERNS += [b"\\[a\\]", b"a\\*", b"\\\\a", b"[", b"[a", b"a\\", b"a**", b"**a", b"a**/b", b"/*"]
PATTERNS += [b"/**", b"!/a/b", b"foo.*", b"[z-a]", b"[\\]]", b"[a\\-z]", b"a[!/]b", b"/", b"//a"]


def given(roots: Roots, start: str = "", selection: Selection = GIT) -> set[bytes]:
    return {walked.path for walked in walk(roots, start, selection)}


def not_ignored(root: Path) -> set[bytes]:
    """All paths of which git does not say that they are ignored. It tells of a directory that is
    ignored as a whole, so what is below one of those goes with it."""
    everything = subprocess.run(
        ["find", ".", "-mindepth", "1", "-name", ".git", "-prune", "-o", "-printf", "%P\\0"],
        cwd=root,
        capture_output=True,
        check=True,
    ).stdout
    ignored = subprocess.run(
        ["git", "check-ignore", "-z", "--stdin"], cwd=root, input=everything, capture_output=True
    ).stdout
    return set(everything.split(b"\0")) - set(ignored.split(b"\0")) - {b""}


def write(root: Path, name: str, content: bytes = b"") -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.fixture
def repository(root: Path) -> Path:
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    return root


def test_random_patterns_and_names_are_judged_as_git_judges(repository: Path, roots: Roots) -> None:
    dice = random.Random(2)
    top = os.fsencode(repository)
    for name in dice.sample(NAMES, 12):
        os.mkdir(top + b"/" + name)
        for below in dice.sample(NAMES, 6):
            os.mknod(top + b"/" + name + b"/" + below)
    os.makedirs(top + b"/a/deep")
    for name in NAMES:
        os.mknod(top + b"/a/deep/" + name)
    for _ in range(60):
        lines = dice.sample(PATTERNS, dice.choice([1, 1, 2, 3]))
        end = dice.choice([b"\n", b"", b"\r\n", b"\n\n"])
        (repository / ".gitignore").write_bytes(b"\n".join(lines) + end)
        (repository / "a" / ".gitignore").write_bytes(dice.choice(PATTERNS))
        assert given(roots) == not_ignored(repository), lines


def test_a_deeper_file_has_the_last_word(repository: Path, roots: Roots) -> None:
    write(repository, ".gitignore", b"\xef\xbb\xbf*.log\n!keep.log\n/build/\n")
    write(repository, "sub/.gitignore", b"!*.log\nkeep.log\nbuild\n")
    for name in ("x.log", "keep.log", "build/x", "sub/x.log", "sub/keep.log", "sub/build", "y"):
        write(repository, name)
    assert given(roots) == not_ignored(repository)
    assert b"sub/x.log" in given(roots)


def test_the_files_above_the_start_count_up_to_the_next_repository(
    root: Path, roots: Roots
) -> None:
    write(root, ".gitignore", b"*.o\nout/\n")
    write(root, "src/lib/.gitignore", b"!b.o\n")
    for name in ("src/lib/a.o", "src/lib/b.o", "src/lib/c", "clone/x.o", "out/a.o", "out/b"):
        write(root, name)
    (root / "clone" / ".git").mkdir()
    assert given(roots, "src/lib") == {b".gitignore", b"b.o", b"c"}
    assert given(roots, "src") == {b"lib", b"lib/.gitignore", b"lib/b.o", b"lib/c"}
    assert given(roots, "clone") == {b"x.o"}
    assert b"clone/x.o" in given(roots)
    assert given(roots, "out") == {b"a.o", b"b"}, "who asks for what is ignored gets it"


def test_git_itself_is_never_shown_and_without_the_rule_it_is(root: Path, roots: Roots) -> None:
    write(root, ".git/config")
    write(root, "sub/.git")
    assert given(roots) == {b"sub"}
    assert given(roots, "", Selection()) == {b".git", b".git/config", b"sub", b"sub/.git"}


def test_patterns_of_the_caller_come_first(root: Path, roots: Roots) -> None:
    write(root, ".gitignore", b"*.o\n")
    for name in ("a.o", "b.o", "#c", "d/e", "d/f"):
        write(root, name)
    selection = Selection(["!a.o", "#c", "d/e", b".gitignore"], "git")
    assert given(roots, "", selection) == {b"a.o", b"d", b"d/f"}
    assert given(roots, "", Selection(["d/", "*.o"])) == {b"#c", b".gitignore"}


def test_what_is_left_out_is_not_entered(root: Path, roots: Roots) -> None:
    write(root, "node_modules/x")
    write(root, "src/y")
    read: list[int] = []

    def names(directory: int, check: Callable[[], object]) -> Sequence[bytes]:
        read.append(os.fstat(directory).st_ino)
        return read_names(directory, check)

    found = walk(roots, "", Selection(["node_modules"]), names=names)
    assert [walked.path for walked in found] == [b"src", b"src/y"]
    assert read == [root.stat().st_ino, (root / "src").stat().st_ino]


@pytest.mark.parametrize("kind", ["link", "fifo", "directory"])
def test_a_gitignore_that_is_no_file_is_not_read(root: Path, roots: Roots, kind: str) -> None:
    write(root, "a.o")
    write(root, "rules", b"*.o\n")
    if kind == "link":
        (root / ".gitignore").symlink_to("rules")
    elif kind == "fifo":
        os.mkfifo(root / ".gitignore")
    else:
        (root / ".gitignore").mkdir()
    assert b"a.o" in given(roots)


def test_a_gitignore_that_is_too_large_ends_the_walk(root: Path, roots: Roots) -> None:
    write(root, ".gitignore", b"#" * (ignorefiles.FILE_BYTES + 1))
    with pytest.raises(CallError) as caught:
        given(roots)
    assert caught.value.code == Code.LIMIT
