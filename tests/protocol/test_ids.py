"""UUIDv7: the layout of RFC 9562 and the order of ids."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import Invalid
from sidecar.protocol.ids import check_uuid7, is_uuid7, show, uuid7, uuid7_after, uuid7_millis

MILLIS = st.integers(0, (1 << 48) - 2)
RANDOM = st.binary(min_size=10, max_size=10)


def test_the_example_of_the_rfc_is_built_from_its_parts() -> None:
    # RFC 9562, A.6: 2022-02-22T14:22:22-05:00, rand_a 0xCC3, rand_b 0x18C4DC0C0C07398F.
    random = (0xCC3 << 62 | 0x18C4DC0C0C07398F) << 6
    id = uuid7(millis=0x017F22E279B0, random=random.to_bytes(10, "big"))
    assert show(id) == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"
    assert uuid7_millis(id) == 1645557742000


@given(millis=MILLIS, random=RANDOM)
def test_an_id_is_a_uuid_of_version_7_with_its_time_in_front(millis: int, random: bytes) -> None:
    id = uuid7(millis=millis, random=random)
    assert uuid.UUID(bytes=id).version == 7
    assert uuid.UUID(bytes=id).variant == uuid.RFC_4122
    assert is_uuid7(id)
    assert uuid7_millis(id) == millis


@given(before=MILLIS, millis=MILLIS, first=RANDOM, second=RANDOM)
def test_the_next_id_sorts_after_and_never_goes_back_in_time(
    before: int, millis: int, first: bytes, second: bytes
) -> None:
    previous = uuid7(millis=before, random=first)
    following = uuid7_after(previous, millis=millis, random=second)
    assert following > previous
    assert is_uuid7(following)
    assert uuid7_millis(following) in (millis, before, before + 1)


def test_a_full_millisecond_runs_over_into_the_next() -> None:
    previous = uuid7(millis=5, random=b"\xff" * 10)
    following = uuid7_after(previous, millis=5, random=b"\x00" * 10)
    assert uuid7_millis(following) == 6


@pytest.mark.parametrize(
    "id",
    [
        pytest.param(b"", id="empty"),
        pytest.param(uuid.UUID("017f22e2-79b0-4cc3-98c4-dc0c0c07398f").bytes, id="version 4"),
        pytest.param(uuid.UUID("017f22e2-79b0-7cc3-d8c4-dc0c0c07398f").bytes, id="variant"),
        pytest.param(uuid.UUID("017f22e2-79b0-7cc3-98c4-dc0c0c07398f").bytes + b"\0", id="long"),
    ],
)
def test_other_bytes_are_no_uuid7(id: bytes) -> None:
    assert not is_uuid7(id)
    with pytest.raises(Invalid, match="call id .* is not a UUIDv7"):
        check_uuid7(id, "call id")


@pytest.mark.parametrize("millis", [-1, 1 << 48])
def test_a_time_outside_48_bits_is_invalid(millis: int) -> None:
    with pytest.raises(Invalid, match="is not a time of a UUIDv7"):
        uuid7(millis=millis, random=bytes(10))


def test_random_bytes_must_be_ten() -> None:
    with pytest.raises(Invalid, match="9 random bytes: 10 expected"):
        uuid7(millis=0, random=bytes(9))
