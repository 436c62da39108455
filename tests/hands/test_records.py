"""Records in a pipe from hands, which may be hostile."""

from __future__ import annotations

import pytest

from sidecar.errors import ProtocolError
from sidecar.hands.records import Records, framed


def test_records_come_out_whole_however_they_arrive() -> None:
    records = Records()
    data = framed({"a": 1}) + framed([b"\xff"])
    found = [value for byte in data for value in records.receive(bytes([byte]))]
    assert found == [{"a": 1}, [b"\xff"]]
    records.check_end()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\0\0\0\0", id="empty"),
        pytest.param(b"\0\2\0\1", id="too long"),
        pytest.param(b"\0\0\0\1\xff", id="no CBOR"),
        pytest.param(b"\0\0\0\2\1\1", id="two values"),
        pytest.param(b"\0\0\0\2\xc1\1", id="a tag"),
    ],
)
def test_what_is_no_record_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        list(Records().receive(data))


def test_a_pipe_that_ends_within_a_record_is_told() -> None:
    records = Records()
    assert list(records.receive(framed("abc")[:-1])) == []
    with pytest.raises(ProtocolError, match="ended after 7 bytes"):
        records.check_end()
