"""Exact replacements: all or none, and why one did not fit."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import CallError, Code, LimitExceeded
from sidecar.protocol.limits import EDIT_BYTES
from sidecar.services.files.edits import Edit, Edited, apply


def refusal(content: bytes, *edits: Edit) -> CallError:
    with pytest.raises(CallError) as caught:
        apply(content, edits)
    assert caught.value.code is Code.PRECONDITION_FAILED
    return caught.value


def test_one_place_is_replaced() -> None:
    edited = apply(b"one\ntwo\nthree\n", [Edit(b"two", b"2")])
    assert edited == Edited(b"one\n2\nthree\n", [1], [2])


def test_each_works_on_what_the_one_before_left() -> None:
    edits = [Edit(b"a", b"b\nc"), Edit(b"c", b"d")]
    assert apply(b"a\n", edits) == Edited(b"b\nd\n", [1, 1], [1, 2])


@pytest.mark.parametrize("count", [0, 3])
def test_several_places_are_replaced_when_that_is_wanted(count: int) -> None:
    assert apply(b"x\nx\nx", [Edit(b"x", b"yy", count)]) == Edited(b"yy\nyy\nyy", [3], [1])


def test_a_place_may_be_deleted_and_bytes_need_not_be_text() -> None:
    assert apply(b"\xff\x00tail", [Edit(b"\xff\x00", b"")]) == Edited(b"tail", [1], [1])


def test_an_edit_that_changes_nothing_counts_all_the_same() -> None:
    assert apply(b"same", [Edit(b"same", b"same")]) == Edited(b"same", [1], [1])


@pytest.mark.parametrize(
    "content, edit, found, lines",
    [
        pytest.param(b"x\n\nx\nx", Edit(b"x", b"y"), 3, [1, 3, 4], id="too many"),
        pytest.param(b"x\ny", Edit(b"x", b"y", 2), 1, [1], id="too few"),
        pytest.param(b"\n\naaa", Edit(b"aa", b"b"), 2, [3, 3], id="they overlap"),
        pytest.param(b"x\n" * 50, Edit(b"x", b"y"), 50, list(range(1, 21)), id="many"),
    ],
)
def test_a_count_that_is_not_as_expected(
    content: bytes, edit: Edit, found: int, lines: list[int]
) -> None:
    error = refusal(content, edit)
    expected = {"edit": 0, "reason": "count", "found": found, "expected": edit.count}
    assert error.details == expected | {"lines": lines}


def test_the_sentence_says_where() -> None:
    error = refusal(b"x\nx\n", Edit(b"x", b"y"))
    assert error.message == (
        "replacement 1 of 1: its text was expected 1 times and stands 2 times, lines 1, 2"
    )
    error = refusal(b"a\r\nb\r\n", Edit(b"a", b"c"), Edit(b"c\nb", b""))
    assert error.message == (
        "replacement 2 of 2: its text is not there;"
        " with other line ends (CRLF or LF) it is at line 1"
    )


@pytest.mark.parametrize(
    "content, edit, hints",
    [
        pytest.param(b"abc", Edit(b"x", b"y"), [], id="nothing like it"),
        pytest.param(b"0\r\na\r\nb\r\n", Edit(b"a\nb\n", b""), [["line_ends", 2]], id="CRLF"),
        pytest.param(b"0\na\nb\n", Edit(b"a\r\nb", b""), [["line_ends", 2]], id="LF"),
        pytest.param(b"\n\tif  x:\n", Edit(b"    if x:", b""), [["whitespace", 2]], id="tab"),
        pytest.param(b"a b\n\nc(d)\n", Edit(b"c( d )", b""), [["whitespace", 3]], id="inside"),
        pytest.param(b"  \n  x", Edit(b"x ", b""), [["whitespace", 2]], id="behind"),
        pytest.param(b"abc", Edit(b" \n", b""), [], id="only whitespace"),
        pytest.param(b"\nnew", Edit(b"old", b"new"), [["applied", 2]], id="applied"),
        pytest.param(
            b"\n\n    x", Edit(b"\tx", b"    x"), [["whitespace", 3], ["applied", 3]], id="both"
        ),
    ],
)
def test_what_may_have_happened_to_a_text_that_is_not_there(
    content: bytes, edit: Edit, hints: list[list[object]]
) -> None:
    error = refusal(content, edit)
    expected = {"edit": 0, "reason": "not_found", "found": 0, "expected": 1}
    assert error.details == expected | {"hints": hints}


def test_a_text_that_an_earlier_edit_of_the_call_took_away() -> None:
    error = refusal(b"\nname = 1", Edit(b"name", b"title"), Edit(b"name = 1", b"gone"))
    assert (error.details["edit"], error.details["hints"]) == (1, [["earlier", 2]])


def test_a_text_that_grows_beyond_the_bound_is_refused_before_it_is_made() -> None:
    with pytest.raises(LimitExceeded) as caught:
        apply(b"a" * 1_000_000, [Edit(b"a", b"b" * 60_000, 0)])
    assert caught.value.details == {"size": 60_000_000_000, "limit": EDIT_BYTES, "edit": 0}


def test_a_text_made_to_be_slow_to_search_is_not() -> None:
    content = b"a " * 1_000_000
    began = time.monotonic()
    refusal(content, Edit(b"a\t" * 20_000 + b"b", b"c"))
    assert time.monotonic() - began < 2


@given(
    words=st.lists(st.sampled_from([b"a", b"b", b" ", b"\t", b"\n", b"\r\n"]), max_size=30),
    old=st.lists(st.sampled_from([b"a", b"b", b" ", b"\n", b"\r\n"]), min_size=1, max_size=5),
)
def test_it_does_what_replace_does_or_hints_at_lines_that_exist(
    words: list[bytes], old: list[bytes]
) -> None:
    content, wanted = b"".join(words), b"".join(old)
    try:
        edited = apply(content, [Edit(wanted, b"-", 0)])
    except CallError as error:
        assert wanted not in content
        for name, number in error.details["hints"]:
            assert name in ("line_ends", "whitespace")
            lines = [b"".join(line.split()) for line in content.split(b"\n")[number - 1 :]]
            place = b"".join(lines).find(b"".join(wanted.split()))
            assert 0 <= place <= len(lines[0])
    else:
        assert edited.content == content.replace(wanted, b"-")
        assert edited.replaced == [content.count(wanted)]
