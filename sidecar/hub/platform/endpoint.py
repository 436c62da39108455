"""The platform endpoint over HTTP. All bodies are JSON objects, of at most 4 KiB.

    POST token                {"run", "incarnation", "reason": "start" | "refresh"}
        200 {"url", "token", "run_token", "expires_in", "generation"}
        403 {"error": "run_ended"}       409 {"error": "superseded"}
    POST runs/<run>           200 {"run", "run_token", "endpoint"}       403 {"error": "run_ended"}
    GET  runs/<run>           200 {"run", "generation", "incarnation", "ended"}
    POST runs/<run>/end       204
    POST controllers/<id>     {"runs": [...], "watch": false, "lifetime": 300}
        200 {"url", "token", "expires_in"}
    POST keys                 200 {"id", "key"}
    DELETE keys/<id>          204            409 {"error": "own_key"}: that would lock you out

To every bearer that is not accepted, for whatever reason and path, the answer is one and the same:
401 {"error": "unauthorized"}. After six of them a minute (see `attempts`) it is 429 with
Retry-After, without a look at the bearer. Only who is accepted learns more: 404 {"error":
"unknown_run"}, and 400 {"error": "invalid", "message"}. 503: the state could not be saved;
ask again with the same run token.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping
from typing import Any, TypeGuard

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sidecar.errors import CallError, Invalid
from sidecar.hub.hub import Hub
from sidecar.hub.platform.file import PlatformFile
from sidecar.hub.platform.platform import Platform, TooManyAttempts, Unauthorized, UnknownRun
from sidecar.hub.platform.run import RunEnded, Superseded
from sidecar.protocol.names import Scope, check_id, controller_grant, sidecar_grant

METHODS = ["GET", "POST", "DELETE"]
MAX_BODY = 4096  # bytes
LONGEST_LIFE = 86400.0  # seconds that a controller's token may be asked for
RETRY_SAVE = 1  # seconds

_INCARNATION = re.compile(r"[0-9a-f-]{1,64}")
_log = logging.getLogger(__name__)

_Answer = dict[str, Any] | None


class PlatformEndpoint:
    """Serves `/platform/v1/...`; saves what has changed before it answers."""

    def __init__(self, hub: Hub, platform: Platform, file: PlatformFile | None) -> None:
        self._hub = hub
        self._platform = platform
        self._file = file

    async def serve(self, request: Request) -> Response:
        try:
            answer = self._answer(request, await _body(request))
            if self._file is not None:
                await self._file.save(self._platform)
        except Unauthorized:
            return _error(401, "unauthorized", {"WWW-Authenticate": "Bearer"})
        except TooManyAttempts as error:
            wait = str(math.ceil(error.wait))
            return _error(429, "too_many_attempts", {"Retry-After": wait})
        except RunEnded:
            return _error(403, "run_ended")
        except Superseded:
            return _error(409, "superseded")
        except UnknownRun:
            return _error(404, "unknown_run")
        except CallError as error:
            return _error(400, "invalid", message=error.message)
        except OSError as error:
            _log.error("the state of the platform endpoint cannot be saved: %s", error)
            return _error(503, "unavailable", {"Retry-After": str(RETRY_SAVE)})
        if isinstance(answer, Response):
            return answer
        return Response(status_code=204) if answer is None else _json(answer)

    def _answer(self, request: Request, body: Mapping[str, Any] | None) -> _Answer | Response:
        """Nothing is looked at before the bearer, except the run that it claims to be of."""
        segments = request.path_params["path"].split("/")
        bearer = _bearer(request)
        if segments == ["token"] and request.method == "POST":
            return self._renew(bearer, body)
        own_key = self._platform.check_key(bearer, now=self._hub.clock.now())
        if body is None:
            raise Invalid(f"the body: a JSON object of at most {MAX_BODY} bytes expected")
        match request.method, segments:
            case "POST", ["runs", run]:
                return self._mint(check_id(run, "run id"))
            case "GET", ["runs", run]:
                return self._describe(run)
            case "POST", ["runs", run, "end"]:
                self._platform.end(run)
                return None
            case "POST", ["controllers", controller]:
                return self._controller(controller, body)
            case "POST", ["keys"]:
                key = self._platform.add_key()
                return {"id": key.split("_")[1], "key": key}
            case "DELETE", ["keys", id]:
                return self._retire(id, own_key)
            case _:
                raise Invalid("no such path, or not by this method")

    def _renew(self, bearer: str, body: Mapping[str, Any] | None) -> _Answer:
        given = {} if body is None else body
        run = given.get("run")
        now = self._hub.clock.now()
        found = self._platform.check_run_token(bearer, run if _is_id(run) else "", now=now)
        incarnation = given.get("incarnation")
        if not isinstance(incarnation, str) or not _INCARNATION.fullmatch(incarnation):
            raise Invalid("incarnation: a UUID expected")
        if given.get("reason") not in ("start", "refresh"):
            raise Invalid("reason: start or refresh expected")
        run_token = self._platform.renew(found, incarnation, now=now)
        life = self._hub.settings.token_life
        return {
            "url": self._hub.address.client_url,
            "token": self._hub.mint(sidecar_grant(found.run.id), life),
            "run_token": run_token,
            "expires_in": life,
            "generation": found.run.generation,
        }

    def _mint(self, run: str) -> _Answer:
        run_token = self._platform.mint(run, now=self._hub.clock.now())
        return {"run": run, "run_token": run_token, "endpoint": self._hub.address.endpoint}

    def _describe(self, id: str) -> _Answer:
        run = self._platform.get(id)
        return {
            "run": id,
            "generation": run.generation,
            "incarnation": run.incarnation,
            "ended": run.has_ended,
        }

    def _controller(self, controller: str, body: Mapping[str, Any]) -> _Answer:
        runs, life = body.get("runs"), body.get("lifetime", 300)
        if not isinstance(runs, list) or not all(_is_id(run) for run in runs):
            raise Invalid("runs: a list of run ids expected")
        if isinstance(life, bool) or not isinstance(life, int | float) or not 1 <= life:
            raise Invalid("lifetime: seconds expected, 1 or more")
        for run in runs:
            self._platform.get(run)
        life = min(life, LONGEST_LIFE)
        scope = Scope.WATCH if body.get("watch") is True else Scope.FULL
        token = self._hub.mint(controller_grant(controller, runs, scope), life)
        return {"url": self._hub.address.client_url, "token": token, "expires_in": life}

    def _retire(self, id: str, own_key: str) -> Response | None:
        if id == own_key:
            return _error(409, "own_key")
        self._platform.retire_key(id)
        return None


def _is_id(value: object) -> TypeGuard[str]:
    try:
        return isinstance(value, str) and check_id(value) == value
    except Invalid:
        return False


def _bearer(request: Request) -> str:
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else ""


async def _body(request: Request) -> Mapping[str, Any] | None:
    """None for what is no JSON object, or too long; nothing is an empty one."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY:
            return None
    try:
        found = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _error(
    status: int, error: str, headers: Mapping[str, str] | None = None, **more: str
) -> Response:
    return _json({"error": error, **more}, status, headers)


def _json(
    content: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """No cache may keep what holds a secret (RFC 6749 §5.1 has it so for tokens)."""
    return JSONResponse(content, status, {"Cache-Control": "no-store", **(headers or {})})
