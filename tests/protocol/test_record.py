"""Records are values: compared, hashed, shown and copied like frozen dataclasses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sidecar.protocol.record import Record, record


@record
class Point(Record):
    x: int
    y: int = 0


@record
class Other(Record):
    x: int
    y: int = 0


def test_equal_are_those_of_one_kind_with_equal_fields() -> None:
    assert Point(1, 2) == Point(1, 2)
    assert Point(1, 2) != Point(1, 3)
    assert Point(1, 2) != Other(1, 2)
    assert Point(1, 2) != (1, 2)


def test_equal_records_are_one_in_a_set() -> None:
    assert len({Point(1, 2), Point(1, 2), Other(1, 2)}) == 2


def test_a_record_shows_its_fields() -> None:
    assert repr(Point(1)) == "Point(x=1, y=0)"


def test_a_copy_with_another_field_is_another_record() -> None:
    one = Point(1, 2)
    assert (replace(one, y=3), one) == (Point(1, 3), Point(1, 2))


def test_fields_match_by_position() -> None:
    match Point(1, 2):
        case Point(x, y):
            assert (x, y) == (1, 2)


def test_a_record_has_no_room_for_other_attributes() -> None:
    with pytest.raises(AttributeError):
        Point(1).z = 2  # type: ignore[attr-defined]
