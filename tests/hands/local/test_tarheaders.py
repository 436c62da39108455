"""Headers that we write are read by Python's `tarfile` as they were meant, and have few bytes."""

from __future__ import annotations

import io
import os
import tarfile
from typing import Any

import pytest

from sidecar.hands.local.tar.tarheaders import END, FILE, SYMLINK, Member, header, padding


def read(member: Member) -> tarfile.TarInfo:
    blocks = header(member)
    with tarfile.open(fileobj=io.BytesIO(blocks + END), encoding="utf-8") as tar:
        found = tar.next()
    assert found is not None
    assert found.offset_data == len(blocks)
    return found


def a_file(**fields: Any) -> Member:
    plain: dict[str, Any] = {
        "name": b"file",
        "kind": FILE,
        "mode": 0o644,
        "uid": 0,
        "gid": 0,
        "mtime_ns": 0,
    }
    return Member(**(plain | fields))


def test_a_plain_one_is_a_single_block() -> None:
    info = tarfile.TarInfo("folder/file")
    info.size, info.mode, info.uid, info.gid, info.mtime = 5, 0o640, 1000, 100, 1_700_000_000
    member = a_file(
        name=b"folder/file", size=5, mode=0o640, uid=1000, gid=100, mtime_ns=1_700_000_000 * 10**9
    )
    expected = info.tobuf(tarfile.USTAR_FORMAT)
    found = header(member)
    assert len(found) == 512
    # tarfile writes devices of all files as blanks, and as zeros: both are none.
    assert found[:148] + found[156:329] == expected[:148] + expected[156:329]


@pytest.mark.parametrize(
    "name",
    [
        b"n" * 100,
        b"n" * 101,
        b"deep/" * 300 + b"file",
        "\u00fc\u4e2d/\U0001f600".encode(),
        b"not utf-8 \xff\xfe",
        b"long and not utf-8 \xff" + b"/x" * 100,
        b"line\nfeed = 7",
    ],
    ids=lambda name: name[:20],
)
@pytest.mark.parametrize("mtime_ns", [0, 1_700_000_000_123_456_789])
def test_names_and_targets_of_links(name: bytes, mtime_ns: int) -> None:
    found = read(a_file(name=name, kind=SYMLINK, target=name, mtime_ns=mtime_ns))
    assert os.fsencode(found.name) == name
    assert os.fsencode(found.linkname) == name


@pytest.mark.parametrize("size", [1, 8**11 - 1, 8**11, 10**15])
def test_sizes(size: int) -> None:
    assert read(a_file(size=size)).size == size


@pytest.mark.parametrize("id", [0, 8**7 - 1, 8**7, 2**32 - 2])
def test_owners(id: int) -> None:
    found = read(a_file(uid=id, gid=id))
    assert (found.uid, found.gid) == (id, id)


@pytest.mark.parametrize(
    ("mtime_ns", "text"),
    [
        (1_700_000_000_000_000_001, "1700000000.000000001"),
        (1_700_000_000_500_000_000, "1700000000.5"),
        (-1_500_000_000, "-1.5"),
        (-2_000_000_000, "-2"),
        (8**11 * 10**9, "8589934592"),
    ],
)
def test_times_that_a_block_does_not_hold(mtime_ns: int, text: str) -> None:
    assert read(a_file(mtime_ns=mtime_ns)).pax_headers == {"mtime": text}


def test_the_length_of_a_record_counts_its_own_digits() -> None:
    for length in range(85, 130):  # a record that grows from two digits to three, from 99 to 101
        name = b"\xc3\xbc" + b"n" * length
        assert os.fsencode(read(a_file(name=name)).name) == name


def test_padding() -> None:
    assert [len(padding(size)) for size in (0, 1, 511, 512, 513)] == [0, 511, 1, 0, 511]
