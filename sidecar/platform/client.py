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

from sidecar.certificates import load_trust_store
from sidecar.errors import NetworkFailure
from sidecar.platform.answers import Grant, check_endpoint, parse_grant, refusal
from sidecar.threads import in_thread
from sidecar.tokens.forms import is_loopback
from sidecar.unreached import (
    SENSELESS_PROXY,
    Way,
    explain,
    explain_proxy,
    explain_silence,
    proxy_of_environment,
)

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
        self._trusted_by = ""

    async def request_token(
        self, run_token: str, *, run: str, incarnation: str, reason: str
    ) -> Grant:
        """Raises a `ChannelError` that says which kind of no it is."""
        request = {"run": run, "incarnation": incarnation, "reason": reason}
        try:
            with anyio.fail_after(REQUEST_TIME):
                status, body, retry_after = await self._post("/v1/token", run_token, request)
        except TimeoutError:
            silence = explain_silence(self._way(), REQUEST_TIME)
            raise NetworkFailure(f"the endpoint: {silence}") from None
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
        except httpx.HTTPError as error:
            raise NetworkFailure(f"the endpoint: {_explain(error, self._way())}") from None
        except (httpx.InvalidURL, OSError, ValueError) as error:
            raise NetworkFailure(f"the endpoint: {type(error).__name__}: {error}") from None

    async def _client(self) -> httpx.AsyncClient:
        """Made once. What the environment says of proxies and certificates may make no sense."""
        if self._http is None:
            try:
                http, self._trusted_by = await in_thread(_make_client, self.endpoint)
            except (OSError, ImportError, ValueError) as error:
                raise NetworkFailure(
                    f"{SENSELESS_PROXY}: {type(error).__name__}; http://HOST:PORT expected"
                ) from None
            self._http = http
        return self._http

    def _way(self) -> Way:
        """For sentences: how the endpoint is asked."""
        parts = urlsplit(self.endpoint)
        host = f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
        is_local = is_loopback(parts.hostname or "")
        proxy = None if is_local else proxy_of_environment(parts.scheme, host)
        return Way(host, proxy, self._trusted_by)


def _make_client(endpoint: str) -> tuple[httpx.AsyncClient, str]:
    """In a thread: httpx takes 60 ms to load, and the certificate store 25 ms to read. Also says
    which store that is."""
    import httpx

    for name in ("httpx", "httpcore"):  # at DEBUG they log what we would not
        logging.getLogger(name).setLevel(logging.WARNING)
    trust = load_trust_store()
    client = httpx.AsyncClient(
        verify=trust.context,
        timeout=httpx.Timeout(REQUEST_TIME, connect=CONNECT_TIME),
        limits=httpx.Limits(max_keepalive_connections=0),
        follow_redirects=False,
        trust_env=not is_loopback(urlsplit(endpoint).hostname or ""),
    )
    return client, trust.source


async def _bounded(response: httpx.Response) -> bytes:
    body = bytearray()
    async for part in response.aiter_raw():
        body += part
        if len(body) > LARGEST_ANSWER:
            raise ValueError(f"an answer of more than {LARGEST_ANSWER} bytes")
    return bytes(body)


def _explain(error: httpx.HTTPError, way: Way) -> str:
    """What httpx says names hosts and system errors, and no header and no body of ours."""
    import httpx  # loaded by now

    match error:
        case httpx.ProxyError():
            return explain_proxy(way, str(error)[:100])
        case httpx.TimeoutException():
            return explain_silence(way)
        case httpx.RemoteProtocolError():
            return f"{way.host} does not speak HTTP ({error}): check the port"
        case httpx.TransportError():
            return explain(error, way)
    return f"{type(error).__name__}: {error}"
