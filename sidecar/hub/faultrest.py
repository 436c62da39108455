"""Faults by REST, for a hub that is a process of its own: `sidecar hub --faults`.

    GET    /faults           what stands, and how often each kind has struck
    DELETE /faults           nothing stands any more
    POST   /faults/<fault>   sets or does one; the body is a JSON object

    enforce_expiry  {"on": true}
    ack_delay       {"seconds": 0.5}                      null: acks are withheld
    lose_acks       {"count": 3, "user": "*"}
    cut_after       {"after": 40, "user": "*", "direction": "in" | "out", "code": null,
                     "reason": "", "forget": false, "times": 1}
    drop            {"user": "*"}
    close           {"user": "*", "code": 1012, "reason": ""}
    forget          {"user": "*"}
    leave           {"seconds": 5, "forget": false}       answered before the hub goes away

`user` is a pattern (see `faults`), or a connection id; what may be left out has its default
above. An answer is the JSON of GET. Only the machine's own loopback address is served, and only
with `Authorization: Bearer <access key>`; whoever lacks either gets one and the same 404, as if
the path did not exist.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sidecar.errors import Invalid
from sidecar.hub.faults import Cut, Direction, check_close_code
from sidecar.hub.hub import Hub
from sidecar.hub.responses import error_response

MAX_BODY = 4096  # bytes
LONGEST = 86400.0  # seconds that the hub may be away, or an ack be held back

_REQUIRED: Any = object()


class FaultEndpoint:
    """Serves `/faults` and what is below it."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def serve(self, request: Request) -> Response:
        if not (_is_from_here(request) and self._has_key(request)):
            return error_response(404, "NotFound", "no such path")
        if request.method == "GET":
            return self._state()
        if request.method == "DELETE":
            self._hub.faults.clear()
            return self._state()
        try:
            arguments = _Arguments(await _body(request))
            goodbye = await self._do(request.path_params.get("fault", ""), arguments)
        except Invalid as error:
            return error_response(400, "BadRequest", error.message)
        return self._state(goodbye)

    def _has_key(self, request: Request) -> bool:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        is_equal = hmac.compare_digest(key.strip().encode(), self._hub.access_key.encode())
        return is_equal and scheme.lower() == "bearer"

    async def _do(self, fault: str, given: _Arguments) -> BackgroundTask | None:
        """Carry it out; what has to wait until the answer is written is returned."""
        hub = self._hub
        match fault:
            case "enforce_expiry":
                hub.faults.enforce_expiry = given.flag("on", True)
            case "ack_delay":
                withheld = given.is_null("seconds")
                hub.faults.ack_delay = math.inf if withheld else given.seconds("seconds")
            case "lose_acks":
                hub.faults.lose_acks(given.count("count"), given.text("user", "*"))
            case "cut_after":
                hub.faults.cut_after(_cut(given))
            case "drop":
                await hub.drop(given.text("user", "*"))
            case "close":
                code = check_close_code(given.count("code"))
                await hub.close(given.text("user", "*"), code, given.text("reason", ""))
            case "forget":
                hub.forget(given.text("user", "*"))
            case "leave":
                seconds, forget = given.seconds("seconds"), given.flag("forget", False)
                return BackgroundTask(hub.leave, seconds, forget=forget)
            case _:
                raise Invalid(f"no fault {fault[:40]!r}")
        return None

    def _state(self, goodbye: BackgroundTask | None = None) -> Response:
        faults = self._hub.faults
        stats = self._hub.stats()
        state = {
            "enforce_expiry": faults.enforce_expiry,
            "ack_delay": None if math.isinf(faults.ack_delay) else faults.ack_delay,
            "lose_acks": [asdict(lost) for lost in faults.lost_acks],
            "cut_after": [asdict(cut) for cut in faults.cuts],
            "struck": dict(faults.struck),
            "connections": stats.connections,
            "sessions": stats.sessions,
        }
        return JSONResponse(state, background=goodbye)


class _Arguments:
    """The body's members, each of the type that is asked for. Raises `Invalid`."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def text(self, name: str, default: str = _REQUIRED) -> str:
        value: str = self._typed(name, default, str, "a string")
        return value

    def flag(self, name: str, default: bool = _REQUIRED) -> bool:
        value: bool = self._typed(name, default, bool, "true or false")
        return value

    def count(self, name: str, default: int = _REQUIRED) -> int:
        value: int = self._typed(name, default, int, "a whole number")
        return value

    def seconds(self, name: str) -> float:
        value = float(self._typed(name, _REQUIRED, (int, float), "a number"))
        if not 0 <= value <= LONGEST:
            raise Invalid(f"{name}: between 0 and {LONGEST:.0f} expected")
        return value

    def is_null(self, name: str, default: bool = False) -> bool:
        return self._values[name] is None if name in self._values else default

    def _typed(self, name: str, default: Any, kind: Any, what: str) -> Any:
        value = self._values.get(name, default)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise Invalid(f"{name}: {what} expected")
        return value


def _cut(given: _Arguments) -> Cut:
    direction = given.text("direction", "in")
    if direction not in list(Direction):
        raise Invalid("direction: in or out expected")
    return Cut(
        given.count("after"),
        given.text("user", "*"),
        Direction(direction),
        None if given.is_null("code", True) else given.count("code"),
        given.text("reason", ""),
        given.flag("forget", False),
        given.count("times", 1),
    )


def _is_from_here(request: Request) -> bool:
    return request.client is not None and ipaddress.ip_address(request.client.host).is_loopback


async def _body(request: Request) -> Mapping[str, Any]:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY:
            raise Invalid(f"more than {MAX_BODY} bytes")
    try:
        values = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        raise Invalid("not JSON") from None
    if not isinstance(values, dict):
        raise Invalid("a JSON object expected")
    return values
