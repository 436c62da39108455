"""One request to the platform endpoint: the only place that knows httpx.

It is loaded with the first request, in a thread, and never by who has a token file. Certificates
are checked, proxies are taken from the environment except for loopback, no redirect is followed
(the run token goes to the host that was named and to no other), and size and time are bounded.
No connection is kept open: there is one request in several minutes.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import anyio
import anyio.to_thread

from sidecar.errors import NetworkFailure
from sidecar.platform.answers import Grant, check_endpoint, parse_grant, refusal
from sidecar.tokens.forms import is_loopback

if TYPE_CHECKING:
    import httpx

REQUEST_TIME = 20.0  # seconds for all of it; the channel waits 30 for its token
CONNECT_TIME = 10.0
LARGEST_ANSWER = 64 * 1024  # bytes


class PlatformClient:
    """Asks one endpoint. Raises `SettingsError` for a URL to which no run token may be sent."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = check_endpoint(endpoint)
        self._http: httpx.AsyncClient | None = None

    async def request_token(
        self, run_token: str, *, run: str, incarnation: str, reason: str
    ) -> Grant:
        """Raises a `ChannelError` that says which kind of no it is."""
        request = {"run": run, "incarnation": incarnation, "reason": reason}
        try:
            with anyio.fail_after(REQUEST_TIME):
                status, body, retry_after = await self._post("/v1/token", run_token, request)
        except TimeoutError:
            raise NetworkFailure(f"the endpoint gave no answer in {REQUEST_TIME:.0f} s") from None
        if status == 200:
            return parse_grant(body)
        raise refusal(status, body, retry_after=retry_after)

    async def _post(
        self, path: str, bearer: str, request: dict[str, str]
    ) -> tuple[int, bytes, str | None]:
        http = await self._client()
        import httpx  # loaded by now

        headers = {"Authorization": f"Bearer {bearer}", "Accept-Encoding": "identity"}
        try:
            async with http.stream(
                "POST", self.endpoint + path, json=request, headers=headers
            ) as response:
                body = await _bounded(response)
                return response.status_code, body, response.headers.get("Retry-After")
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            raise NetworkFailure(_sentence(error)) from None

    async def _client(self) -> httpx.AsyncClient:
        """Made once. What the environment says of proxies and certificates may make no sense."""
        if self._http is None:
            try:
                self._http = await anyio.to_thread.run_sync(_make_client, self.endpoint)
            except (OSError, ImportError, ValueError) as error:
                raise NetworkFailure(
                    f"the environment's proxy or certificates do not work: {type(error).__name__}"
                ) from None
        return self._http


def _make_client(endpoint: str) -> httpx.AsyncClient:
    """In a thread: httpx takes 60 ms to load, and the certificate store 20 ms to read."""
    import httpx

    for name in ("httpx", "httpcore"):  # at DEBUG they log what we would not
        logging.getLogger(name).setLevel(logging.WARNING)
    return httpx.AsyncClient(
        timeout=httpx.Timeout(REQUEST_TIME, connect=CONNECT_TIME),
        limits=httpx.Limits(max_keepalive_connections=0),
        follow_redirects=False,
        trust_env=not is_loopback(urlsplit(endpoint).hostname or ""),
    )


async def _bounded(response: httpx.Response) -> bytes:
    body = bytearray()
    async for part in response.aiter_raw():
        body += part
        if len(body) > LARGEST_ANSWER:
            raise ValueError(f"an answer of more than {LARGEST_ANSWER} bytes")
    return bytes(body)


def _sentence(error: Exception) -> str:
    """What httpx says names hosts and system errors, and no header and no body of ours."""
    text = str(error)
    return f"the endpoint cannot be reached: {type(error).__name__}" + (f", {text}" if text else "")
