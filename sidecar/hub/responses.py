"""Errors of the HTTP side, in the shape of the service."""

from __future__ import annotations

from starlette.responses import JSONResponse


def error_response(status: int, code: str, message: str) -> JSONResponse:
    """`{"code", "message"}`, and the code again in a header for requests without a body (HEAD)."""
    return JSONResponse(
        {"code": code, "message": message}, status, headers={"x-ms-error-code": code}
    )
