"""Archives of every format are read; what is none is told, with the place."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable

import pytest
from tars import folder, link, member, tar_of

from sidecar.hands.local.tar.tarreading import BrokenTar, Found, Inflating, Kind, TarReader

FORMATS = {
    "pax": tarfile.PAX_FORMAT,
    "gnu": tarfile.GNU_FORMAT,
    "ustar": tarfile.USTAR_FORMAT,
}


def read(tar: bytes, *, step: int = 1 << 20) -> list[tuple[Found, bytes]]:
    """All members with their content; the input comes in pieces of `step` bytes."""
    reader = TarReader(Pieces(tar, step))
    return [(found, b"".join(reader.content())) for found in reader]


class Pieces:
    def __init__(self, data: bytes, step: int) -> None:
        self._file = io.BytesIO(data)
        self._step = step

    def read(self, size: int) -> bytes:
        return self._file.read(min(size, self._step))


@pytest.mark.parametrize("step", [1, 511, 512, 1 << 20])
@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS.keys())
def test_members_and_their_content(format: int, step: int) -> None:
    tar = tar_of(
        folder("d", 0o700, 7),
        member("d/a", b"1" * 600, mode=0o644),
        link("d/b", "a"),
        format=format,
    )
    found = read(tar, step=step)
    assert [(m.name.rstrip(b"/"), m.kind, m.mode, c) for m, c in found] == [
        (b"d", Kind.DIRECTORY, 0o700, b""),
        (b"d/a", Kind.FILE, 0o644, b"1" * 600),
        (b"d/b", Kind.SYMLINK, 0o644, b""),
    ]
    assert found[0][0].mtime_ns == 7 * 10**9
    assert found[2][0].target == b"a"


@pytest.mark.parametrize("format", ["pax", "gnu"])
def test_long_names_and_targets(format: str) -> None:
    long = "n" * 90 + "/" + "m" * 200
    tar = tar_of(member(long, b"1"), link(long + "x", long), format=FORMATS[format])
    found = read(tar)
    assert [m.name for m, _ in found] == [long.encode(), long.encode() + b"x"]
    assert found[1][0].target == long.encode()


def test_a_name_in_two_fields_of_ustar() -> None:
    long = "p" * 120 + "/" + "n" * 90
    assert read(tar_of(member(long), format=tarfile.USTAR_FORMAT))[0][0].name == long.encode()


def test_times_with_a_fraction() -> None:
    info, _ = member("a")
    info.pax_headers = {"mtime": "1700000000.1234567899"}
    before, _ = member("b")
    before.pax_headers = {"mtime": "-1.5"}
    after, _ = member("c", mtime=3)
    found = read(tar_of((info, b""), (before, b""), (after, b"")))
    assert [m.mtime_ns for m, _ in found] == [1_700_000_000_123_456_789, -1_500_000_000, 3 * 10**9]


def test_a_size_that_only_a_binary_number_holds() -> None:
    info, _ = member("a")
    info.size = 8**11
    block = info.tobuf(tarfile.GNU_FORMAT)
    reader = TarReader(Pieces(block, 512))
    assert next(iter(reader)).size == 8**11


def test_a_directory_of_v7_is_a_name_with_a_slash() -> None:
    info, _ = member("d/", type=tarfile.AREGTYPE)
    block = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    block[257:] = bytes(255)  # V7 has nothing there
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    assert read(bytes(block) + bytes(1024))[0][0].kind is Kind.DIRECTORY


def test_a_checksum_of_bytes_with_a_sign() -> None:
    block = bytearray(member("\u00fc")[0].tobuf(tarfile.GNU_FORMAT, encoding="latin-1"))
    assert block[0] == 0xFC
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % (sum(block) - 256)
    assert read(bytes(block) + bytes(1024))[0][0].name == b"\xfc"


def test_content_that_is_not_taken_is_passed_over() -> None:
    tar = tar_of(member("a", b"1" * 5000), member("b", b"2"))
    reader = TarReader(Pieces(tar, 700))
    assert [found.name for found in reader] == [b"a", b"b"]


def test_sparse_members_are_told_as_such() -> None:
    info, content = member("a", b"0" * 100)
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.name": "real"}
    found = read(tar_of((info, content), member("b", b"2")))
    assert [(m.name, m.kind) for m, _ in found] == [(b"real", Kind.SPARSE), (b"b", Kind.FILE)]


def test_a_global_header_says_nothing_of_members() -> None:
    buffer = io.BytesIO()
    headers = {"comment": "0" * 40, "path": "other"}
    with tarfile.open(fileobj=buffer, mode="w", pax_headers=headers) as tar:
        tar.addfile(member("a")[0])
    assert [m.name for m, _ in read(buffer.getvalue())] == [b"a"]


# What is none ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tar", "offset", "why"),
    [
        (b"", 0, "the end, in the middle of a header"),
        (b"x" * 100, 100, "the end, in the middle of a header"),
        (b"no tar" * 200, 0, "no header: a number that is"),
        (tar_of(member("a", b"1" * 600))[:700], 700, "in the middle of the content"),
        (tar_of(member("a", b"1" * 600))[:1120], 1120, "in the middle of the zeros after"),
        (tar_of(member("a", b"1" * 600))[:1536], 1536, "the end, in the middle of a header"),
        (tar_of(member("n" * 101))[:520], 520, "in the middle of an extended header"),
    ],
    ids=range(7),
)
def test_what_is_cut_off_or_no_archive(tar: bytes, offset: int, why: str) -> None:
    with pytest.raises(BrokenTar, match=why) as caught:
        read(tar)
    assert caught.value.offset == offset


def changed(at: int, text: bytes) -> bytes:
    """A header with other bytes, and its checksum right."""
    block = bytearray(member("a")[0].tobuf(tarfile.PAX_FORMAT))
    block[at : at + len(text)] = text
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize(
    ("block", "why"),
    [
        (changed(124, b"0000000000z"), "a number that is"),
        (changed(124, b"\xff" + b"\xff" * 11), "a size of -1"),
        (b"b" + changed(0, b"a")[1:], "its checksum says"),
    ],
)
def test_headers_that_make_no_sense(block: bytes, why: str) -> None:
    with pytest.raises(BrokenTar, match=why) as caught:
        read(block + bytes(1024))
    assert caught.value.offset == 0


def extended(data: bytes, kind: bytes = b"x", size: int | None = None) -> bytes:
    info, _ = member("head", type=kind)
    info.size = len(data) if size is None else size
    return info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512)


@pytest.mark.parametrize(
    ("blocks", "why"),
    [
        (extended(b"", size=2 << 20), "an extended header of 2097152 bytes"),
        (extended(b"", b"L", size=2 << 20), "an extended header of 2097152 bytes"),
        (extended(b"12 path=a"), "a record that is none"),
        (extended(b"9 path=a\n\0\0\0"), "a record that is none"),
        (extended(b"99999999999999999999999999999999999999"), "a record that is none"),
        (extended(b"0 \n"), "a record that is none"),
        (extended(b"12 size=-12\n"), "a size of b'-12'"),
        (extended(b"13 mtime=now\n"), "a mtime of b'now'"),
        (extended(b"30 mtime=999999999999999999999\n"[:31]), "none|mtime"),
    ],
    ids=range(9),
)
def test_extended_headers_that_make_no_sense(blocks: bytes, why: str) -> None:
    with pytest.raises(BrokenTar, match=why):
        read(blocks + tar_of(member("a")))


# gzip ------------------------------------------------------------------------------------

TAR = tar_of(member("a", b"1" * 100_000), member("b", b"2"))


@pytest.mark.parametrize("step", [1000, 1, 1 << 20])
@pytest.mark.parametrize(
    "compress",
    [
        gzip.compress,
        lambda data: gzip.compress(data[:777]) + gzip.compress(data[777:]),
        lambda data: gzip.compress(data) + bytes(1000),
    ],
    ids=["one", "two", "zeros"],
)
def test_gzip(compress: Callable[[bytes], bytes], step: int) -> None:
    reader = TarReader(Inflating(Pieces(compress(TAR), step)))
    assert [(m.name, len(b"".join(reader.content()))) for m in reader] == [
        (b"a", 100_000),
        (b"b", 1),
    ]


def test_gzip_that_is_cut_off_or_damaged() -> None:
    compressed = gzip.compress(TAR)
    for broken in (compressed[:200], compressed[:100] + b"\xff" * 50 + compressed[150:]):
        with pytest.raises(BrokenTar, match="cannot be inflated"):
            for _ in TarReader(Inflating(Pieces(broken, 1000))):
                pass


def test_little_is_inflated_at_once() -> None:
    bomb = Inflating(Pieces(gzip.compress(bytes(50_000_000)), 1 << 20))
    assert len(bomb.read(1000)) <= 1000
