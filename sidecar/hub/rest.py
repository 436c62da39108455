"""The REST side of the hub: what servers ask it to do.

Source: Azure/azure-rest-api-specs, specification/webpubsub/data-plane, 2024-12-01.

Paths are routed by their raw segments, because an encoded slash belongs to the name of a group
and stays as it was written (`%2F`), as in the service. Not here: filters, paging, listing and
token generation; they are answered with an error that says so.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NoReturn
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import Response

from sidecar.errors import CallError, LimitExceeded, ProtocolError
from sidecar.hub.hub import Hub
from sidecar.hub.metadata import check_metadata
from sidecar.hub.permissions import Right, check_group
from sidecar.hub.relay import check_ttl
from sidecar.hub.responses import error_response
from sidecar.hub.session import HubSession
from sidecar.hub.tokens import TokenError, rest_audiences
from sidecar.protocol.webpubsub import payload
from sidecar.protocol.webpubsub.frames import DataType, Message

METHODS = ["HEAD", "GET", "PUT", "POST", "DELETE"]
API_VERSIONS = frozenset({"2021-10-01", "2022-11-01", "2023-07-01", "2024-01-01", "2024-12-01"})
METADATA_PREFIX = "x-webpubsub-metadata-"

_DATA_TYPES = {
    "text/plain": DataType.TEXT,
    "application/json": DataType.JSON,
    "application/octet-stream": DataType.BINARY,
}


class _Failure(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.response = error_response(status, code, message)


class RestEndpoint:
    """Serves `/api/...`."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._relay = hub.relay
        self._registry = hub.relay.registry

    async def serve(self, request: Request) -> Response:
        try:
            return await self._serve(request)
        except _Failure as failure:
            return failure.response
        except TokenError as error:
            return error_response(401, "Unauthorized", str(error))
        except CallError as error:
            return error_response(400, "BadRequest", error.message)
        except ProtocolError as error:
            return error_response(400, "BadRequest", str(error))

    async def _serve(self, request: Request) -> Response:
        segments = _segments(request)
        if segments == ["health"]:
            return Response()
        self._authorize(request)
        version = request.query_params.get("api-version", "2024-12-01")
        if version not in API_VERSIONS:
            raise _Failure(400, "BadRequest", f"api-version {version[:40]!r} is not known")
        if "filter" in request.query_params:
            raise _Failure(400, "BadRequest", "this hub has no filters")
        if segments[:1] != ["hubs"] or segments[1:2] == [] or not self._is_here(segments[1]):
            raise _Failure(404, "NotFound", "no such hub")
        match segments[2:]:
            case [*target, ":send"] if request.method == "POST":
                return await self._send(request, target)
            case [*target, ":closeConnections"] if request.method == "POST":
                return self._close_all(request, target)
            case rest:
                return self._manage(request, rest)

    def _authorize(self, request: Request) -> None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise TokenError("the request has no bearer token")
        hosts = self._hub.hosts(request.headers.get("host"))
        audiences = rest_audiences(hosts, _raw_path(request), request.url.query)
        self._hub.tokens.check_rest(token.strip(), audiences, now=self._hub.clock.wall())

    def _is_here(self, name: str) -> bool:
        return name.lower() == self._hub.settings.hub.lower()

    # messages

    async def _send(self, request: Request, target: list[str]) -> Response:
        receivers, group = self._receivers(target)
        metadata = _metadata(request)
        data_type, data = await self._body(request)
        message = Message(
            "server" if group is None else "group", data, group, data_type, metadata=metadata
        )
        self._relay.send(
            receivers,
            message,
            now=self._hub.clock.now(),
            ttl=_ttl(request),
            excluded=request.query_params.getlist("excluded"),
        )
        return Response(status_code=202)

    def _receivers(self, target: list[str]) -> tuple[Collection[HubSession], str | None]:
        """The sessions that a path names, and the group if it names one."""
        match target:
            case []:
                return tuple(self._registry), None
            case ["groups", group]:
                return self._registry.of_group(check_group(group)), group
            case ["users", user_id]:
                return self._registry.of_user(user_id), None
            case ["connections", connection_id]:
                return self._one(connection_id), None
            case _:
                _no_such_path()

    def _one(self, connection_id: str) -> Collection[HubSession]:
        session = self._registry.get(connection_id)
        return () if session is None else (session,)

    async def _body(self, request: Request) -> tuple[DataType, bytes]:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        data_type = _DATA_TYPES.get(kind)
        if data_type is None:
            raise _Failure(415, "UnsupportedMediaType", f"expected one of {', '.join(_DATA_TYPES)}")
        limit = self._hub.settings.max_message
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > limit:
                raise _Failure(413, "PayloadTooLarge", f"at most {limit} bytes are allowed")
        data = bytes(body)
        payload.check(data_type, data)
        return data_type, data

    # connections, groups, permissions

    def _close_all(self, request: Request, target: list[str]) -> Response:
        receivers, _ = self._receivers(target)
        excluded = request.query_params.getlist("excluded")
        for session in receivers:
            if session.connection_id not in excluded:
                self._relay.dismiss(session, request.query_params.get("reason", ""))
        return Response(status_code=204)

    def _manage(self, request: Request, rest: list[str]) -> Response:
        match request.method, rest:
            case "HEAD", ["connections" | "groups" | "users", _]:
                return Response(status_code=200 if self._receivers(rest)[0] else 404)
            case "DELETE", ["connections", connection_id]:
                for session in self._one(connection_id):
                    self._relay.dismiss(session, request.query_params.get("reason", ""))
                return Response(status_code=204)
            case "PUT", ["groups", group, "connections", connection_id]:
                return self._join(self._one(connection_id), group, "Connection")
            case "PUT", ["users", user_id, "groups", group]:
                return self._join(self._registry.of_user(user_id), group, "User")
            case "DELETE", ["groups", group, "connections", connection_id]:
                return self._leave(self._one(connection_id), group)
            case "DELETE", ["users", user_id, "groups", group]:
                return self._leave(self._registry.of_user(user_id), group)
            case "DELETE", ["connections", connection_id, "groups"]:
                return self._leave(self._one(connection_id), None)
            case "DELETE", ["users", user_id, "groups"]:
                return self._leave(self._registry.of_user(user_id), None)
            case method, ["permissions", right, "connections", connection_id] if right in set(
                Right
            ):
                return self._permit(request, method, Right(right), connection_id)
            case _:
                _no_such_path()

    def _join(self, sessions: Collection[HubSession], group: str, what: str) -> Response:
        check_group(group)
        if not sessions:
            raise _Failure(404, f"Error.{what}.NotExisted", f"the {what.lower()} is not connected")
        for session in sessions:
            self._registry.join(session, group)
        return Response()

    def _leave(self, sessions: Collection[HubSession], group: str | None) -> Response:
        """Take `sessions` out of `group`, or of all their groups."""
        for session in sessions:
            for name in tuple(session.groups) if group is None else (group,):
                self._registry.leave(session, name)
        return Response(status_code=204)

    def _permit(self, request: Request, method: str, right: Right, connection_id: str) -> Response:
        session = self._registry.get(connection_id)
        group = request.query_params.get("targetName")
        if method == "DELETE":
            if session is not None:
                session.permissions.revoke(right, group)
            return Response(status_code=204)
        if session is None:
            raise _Failure(404, "Error.Connection.NotExisted", "the connection is not connected")
        if method == "PUT":
            try:
                session.permissions.grant(right, group)
            except LimitExceeded as error:
                raise _Failure(409, "Conflict", error.message) from None
            return Response()
        if method == "HEAD":
            return Response(status_code=200 if session.permissions.allows(right, group) else 404)
        _no_such_path()


def _raw_path(request: Request) -> str:
    raw: bytes = request.scope["raw_path"]
    return raw.decode("ascii")


def _segments(request: Request) -> list[str]:
    """The decoded segments after `/api/`; an encoded slash stays encoded."""
    raw = _raw_path(request).removeprefix("/api/").rstrip("/")
    return [unquote(re.sub("%2f", "%252F", part, flags=re.IGNORECASE)) for part in raw.split("/")]


def _metadata(request: Request) -> dict[str, str] | None:
    metadata = {
        name.removeprefix(METADATA_PREFIX): value
        for name, value in request.headers.items()
        if name.startswith(METADATA_PREFIX)
    }
    check_metadata(metadata)
    return metadata or None


def _ttl(request: Request) -> int | None:
    text = request.query_params.get("messageTtlSeconds")
    if text is None:
        return None
    if not re.fullmatch("[0-9]{1,9}", text):
        raise _Failure(400, "BadRequest", "messageTtlSeconds is not a number")
    check_ttl(int(text))
    return int(text)


def _no_such_path() -> NoReturn:
    raise _Failure(404, "NotFound", "no such operation")
