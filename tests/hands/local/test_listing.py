"""Pages of trees: their order, their ends, what they leave out; in both forms of hands."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import anyio
import pytest
from anyio import from_thread
from stack import until

from sidecar.errors import CallError, Code
from sidecar.hands.interface import FileType, Hands, Selection
from sidecar.hands.local.hands import LocalHands
from sidecar.hands.local.walk import listing, namelists

FLAT = Selection(depth=1)


async def test_a_listing_is_sorted_by_bytes_and_comes_in_pages(hands: Hands, root: Path) -> None:
    for name in (b"b", b"a", b"\xff", b"Z", b"\xc3\xa9", b"aa"):
        os.mknod(os.fsencode(root) + b"/" + name)
    (root / "link").symlink_to("/etc/passwd")

    page = await hands.walk("", FLAT, limit=3)
    assert [entry.path for entry in page.entries] == [b"Z", b"a", b"aa"]
    assert page.next == b"aa"

    page = await hands.walk("", after=b"aa", limit=100)
    assert [entry.path for entry in page.entries] == [b"b", b"link", b"\xc3\xa9", b"\xff"]
    assert page.next is None
    assert page.entries[1].stat is not None
    assert page.entries[1].stat.target == b"/etc/passwd"


async def test_a_page_of_exactly_the_rest_is_the_last(hands: Hands, root: Path) -> None:
    (root / "a").touch()
    (root / "b").touch()
    assert (await hands.walk("", limit=2)).next is None


async def test_an_empty_directory_has_one_empty_page(hands: Hands) -> None:
    page = await hands.walk("")
    assert (page.entries, page.next) == ([], None)


@pytest.mark.parametrize(
    "path, code",
    [
        ("file", Code.NOT_DIRECTORY),
        ("nothing", Code.NOT_FOUND),
        ("out", Code.OUTSIDE),
        ("..", Code.OUTSIDE),
    ],
)
async def test_what_cannot_be_listed_has_a_code(
    hands: Hands, root: Path, path: str, code: Code
) -> None:
    (root / "file").touch()
    (root / "out").symlink_to("../outside")
    with pytest.raises(CallError) as caught:
        await hands.walk(path)
    assert caught.value.code == code


async def test_a_page_needs_room_for_an_entry(hands: Hands) -> None:
    with pytest.raises(CallError) as caught:
        await hands.walk("", limit=0)
    assert caught.value.code == Code.INVALID


@pytest.mark.slow
@pytest.mark.timeout(240)  # making them may wait for the disk
async def test_two_hundred_thousand_entries_are_listed(any_hands: Hands, root: Path) -> None:
    here = os.open(root, os.O_RDONLY)
    for number in range(200_000):
        # Many names of few files: that is quicker, and a file has at most 65,000 (ext4).
        if number % 50_000 == 0:
            source = f"{number:06}"
            os.close(os.open(source, os.O_CREAT | os.O_WRONLY, dir_fd=here))
        else:
            os.link(source, f"{number:06}", src_dir_fd=here, dst_dir_fd=here)
    os.close(here)

    page = await any_hands.walk("", after=b"150000", limit=1000)
    assert page.next == b"151000"
    assert len(page.entries) == 1000
    assert page.entries[0].path == b"150001"
    assert page.entries[-1].path == b"151000"


async def test_a_page_ends_after_a_while_even_if_nothing_was_found(
    any_hands: Hands, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c.py"):
        (root / name).touch()
    monkeypatch.setattr(listing, "PAGE_TIME", 0.0)
    nexts, after, found = [], None, []
    while True:
        page = await any_hands.walk("", Selection(globs=["*.py"]), after=after)
        found += [entry.path for entry in page.entries]
        after = page.next
        if after is None:
            break
        nexts.append(after)
    assert (nexts, found) == ([b"a", b"b"], [b"c.py"])


async def test_a_page_ends_with_so_many_bytes(
    any_hands: Hands, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        (root / name).touch()
    monkeypatch.setattr(listing, "PAGE_BYTES", 150)
    page = await any_hands.walk("")
    assert ([entry.path for entry in page.entries], page.next) == ([b"a", b"b"], b"b")


@pytest.mark.usefixtures("deep")
async def test_what_cannot_be_entered_is_told_in_its_place(any_hands: Hands, root: Path) -> None:
    deep = os.open(root, os.O_RDONLY)
    for _ in range(45):
        os.mkdir("n" * 200, dir_fd=deep)
        below = os.open("n" * 200, os.O_RDONLY, dir_fd=deep)
        os.close(deep)
        deep = below
    os.close(deep)
    last = (await any_hands.walk("")).entries[-1]
    assert last.stat is not None
    assert last.stat.type == FileType.DIRECTORY
    assert last.error is not None
    assert last.error.code == Code.INVALID
    assert last.error.details["errno"] == "ENAMETOOLONG"


async def test_names_that_are_kept_go_by_themselves(
    local: LocalHands, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(namelists, "KEEP_FROM", 1)
    monkeypatch.setattr(namelists, "SETTLED", -60.0)
    monkeypatch.setattr(namelists, "KEPT_TIME", 0.05)
    (root / "a").touch()
    await local.walk("")
    lister = local._lister
    assert lister is not None
    assert lister._names._kept
    await until(lambda: not lister._names._kept)
    await until(lambda: lister._expiry is None)


async def test_a_page_that_nobody_waits_for_any_more_ends(
    local: LocalHands, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "a").touch()
    begun, asked = threading.Event(), threading.Event()
    real = from_thread.check_cancelled

    def check() -> None:
        begun.set()
        asked.wait(5)
        real()

    monkeypatch.setattr(from_thread, "check_cancelled", check)
    ended: list[bool] = []

    async def ask() -> None:
        await local.walk("")
        ended.append(True)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await until(begun.is_set)
        tasks.cancel_scope.cancel()
        asked.set()
    assert not ended
