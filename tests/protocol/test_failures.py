from __future__ import annotations

import pytest

from sidecar.errors import ChannelError, NetworkFailure, Replaced, TokenExpired, TokenRefused
from sidecar.protocol.failures import ends_recovery, from_close, from_status


@pytest.mark.parametrize(
    "status, left, kind",
    [
        pytest.param(401, -1.0, TokenExpired, id="401 and the token is past its time"),
        pytest.param(401, 1.0, TokenRefused, id="401 though the token is good for a second"),
        pytest.param(401, None, TokenRefused, id="401 and nobody knows when it expires"),
        pytest.param(403, -1.0, TokenRefused, id="403 is no matter of time"),
        pytest.param(400, None, TokenRefused, id="a malformed claim"),
        pytest.param(404, None, NetworkFailure, id="no such hub, or an ingress without one"),
        pytest.param(407, None, NetworkFailure, id="a proxy wants a password"),
        pytest.param(429, None, NetworkFailure, id="too many connections"),
        pytest.param(502, None, NetworkFailure, id="a gateway without its service"),
    ],
)
def test_statuses_are_told_apart(status: int, left: float | None, kind: type[ChannelError]) -> None:
    error = from_status(status, left=left)
    assert type(error) is kind
    assert str(status) in str(error)


@pytest.mark.parametrize(
    "status, ends",
    [(None, False), (401, True), (404, True), (408, False), (429, False), (500, False)],
)
def test_a_recovery_ends_by_what_will_not_change(status: int | None, ends: bool) -> None:
    assert ends_recovery(status) is ends


@pytest.mark.parametrize(
    "code, farewell, kind",
    [
        pytest.param(None, None, NetworkFailure, id="cut"),
        pytest.param(1001, None, NetworkFailure, id="the service restarts"),
        pytest.param(1011, None, NetworkFailure, id="the service failed"),
        pytest.param(1000, None, Replaced, id="closed in order"),
        pytest.param(1000, "enough", Replaced, id="closed by the platform"),
        pytest.param(None, "enough", Replaced, id="said goodbye and cut"),
        pytest.param(1008, None, Replaced, id="forgotten"),
        pytest.param(1009, None, ChannelError, id="a message of ours was too large"),
        pytest.param(1007, "bad frame", ChannelError, id="a frame of ours was malformed"),
    ],
)
def test_closes_are_told_apart(
    code: int | None, farewell: str | None, kind: type[ChannelError]
) -> None:
    error = from_close(code, "", farewell)
    assert type(error) is kind
    assert farewell is None or code == 1007 or farewell in str(error)
