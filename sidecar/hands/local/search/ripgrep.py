"""How ripgrep is asked for the lines that match.

It is asked where they are and prints not what they say (`findings`): what is shown of a file is
read beneath the root, and a line of 20 MiB costs nothing. It sees the tree by paths from its
working directory, and knows nothing of what our own patterns mean exactly; so it is asked for no
less than what is wanted, and what it finds is judged once more.

Flags as in ripgrep 13 to 15. One file after the other (--sort), or there would be no first lines.
"""

from __future__ import annotations

import os
import re
import shutil

from sidecar.hands.local.search.query import Query

_ALWAYS = (
    *("--no-config", "--hidden", "--no-mmap", "--encoding=none", "--crlf", "--sort=path"),
    *("--color=never", "--no-heading", "--with-filename", "--null", "--line-number", "--column"),
    *("--byte-offset", "--max-columns=1", "--stats", "--no-ignore-messages"),
    "--glob=!*.sidecar-part",
)
# Only the .gitignore files of the tree, as in our own walk, and those without a repository, too.
_GIT = (
    *("--no-ignore-dot", "--no-ignore-exclude", "--no-ignore-global", "--no-ignore-parent"),
    *("--no-require-git", "--glob=!.git"),
)
_NAME = re.compile(r"[A-Za-z0-9._*-]+")  # a pattern of a name that means the same to both
_NO_FILE = re.compile(rb"\(os error \d+\)")


def find() -> str | None:
    """Where it is, in our own PATH. What a relative PATH leads to is not meant: the working
    directory that ripgrep is started in is the agent's."""
    found = shutil.which("rg")
    return found if found and os.path.isabs(found) else None


def command(program: str, query: Query) -> list[bytes]:
    """Its argv, for a directory as its working directory."""
    words = [program, *_ALWAYS, *_ignoring(query), *_of_names(query)]
    if query.fixed:
        words.append("--fixed-strings")
    if query.ignore_case:
        words.append("--ignore-case")
    words += [f"--regexp={query.pattern}", "./"]
    return [word.encode("utf-8", "surrogateescape") for word in words]


def environment() -> dict[bytes, bytes]:
    """Nothing of ours: RIPGREP_CONFIG_PATH could name any file."""
    return {b"PATH": os.environb.get(b"PATH", b""), b"LC_ALL": b"C.UTF-8"}


def unreadable(said: bytes) -> int:
    """How many files and directories it could not read, by what it said on standard error."""
    return len(_NO_FILE.findall(said))


def _ignoring(query: Query) -> list[str]:
    """A `!` among the patterns brings back what a .gitignore leaves out."""
    excluded = query.exclude
    if any(pattern.startswith("!") for pattern in excluded):
        return ["--no-ignore"]
    ours = [f"--glob=!{pattern}" for pattern in excluded if _NAME.fullmatch(pattern)]
    return [*(_GIT if query.ignore == "git" else ("--no-ignore",)), *ours]


def _of_names(query: Query) -> list[str]:
    """Globs of names as a type of file: --glob would bring back what a .gitignore leaves out."""
    names = [glob.removeprefix("**/") for glob in query.globs]
    if not names or not all(glob.startswith("**/") for glob in query.globs):
        return []
    if not all(_NAME.fullmatch(name) for name in names):
        return []
    return [*(f"--type-add=wanted:{name}" for name in names), "--type=wanted"]
