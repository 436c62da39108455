"""Where a run token goes, and where not: certificates, proxies, redirects."""

from __future__ import annotations

from pathlib import Path

import anyio
import anyio.abc
import pytest
from anyio.streams.tls import TLSListener
from certificate import server_context
from endpoint import Answer, FakeEndpoint, endpoint, grant

from sidecar.errors import NetworkFailure
from sidecar.platform.answers import Grant
from sidecar.platform.client import PlatformClient


async def ask(client: PlatformClient) -> Grant:
    return await client.request_token("hush", run="demo", incarnation="i", reason="start")


async def test_a_certificate_that_nobody_vouches_for_gets_no_run_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, pem = server_context(tmp_path)
    fake = FakeEndpoint()
    fake.says(grant(1))
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as plain:
        port = plain.extra(anyio.abc.SocketAttribute.local_port)
        listener = TLSListener(plain, context, standard_compatible=False)
        async with anyio.create_task_group() as group:
            group.start_soon(listener.serve, fake.serve)
            with pytest.raises(NetworkFailure, match="is not trusted .self-signed certificate."):
                await ask(PlatformClient(f"https://localhost:{port}"))
            assert fake.asked == []
            # The same one, once somebody vouches for it: so it was the certificate.
            monkeypatch.setenv("SSL_CERT_FILE", str(pem))
            assert (await ask(PlatformClient(f"https://localhost:{port}"))).token == "token-1"
            group.cancel_scope.cancel()


async def test_no_redirect_is_followed() -> None:
    async with endpoint() as there, endpoint() as here:
        there.says(grant(1))
        here.says(Answer(307, headers={"Location": f"{there.url}/v1/token"}))
        with pytest.raises(NetworkFailure, match="no redirect is followed"):
            await ask(PlatformClient(here.url))
    assert there.asked == []


async def test_a_proxy_of_the_environment_is_asked_for_every_other_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    async def proxy(client: anyio.abc.SocketStream) -> None:
        async with client:
            asked.append(await client.receive())
            await client.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        monkeypatch.setenv("https_proxy", f"http://user:pass-hush@127.0.0.1:{port}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        async with anyio.create_task_group() as group:
            group.start_soon(listener.serve, proxy)
            with pytest.raises(NetworkFailure) as failed:
                await ask(PlatformClient("https://platform.invalid"))
            group.cancel_scope.cancel()
    assert asked[0].startswith(b"CONNECT platform.invalid:443 HTTP/1.1")
    assert b"Bearer" not in asked[0]
    assert "hush" not in str(failed.value)


async def test_a_proxy_that_makes_no_sense_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "gopher://user:hush@h")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(NetworkFailure, match=r"proxy of the environment makes no sense") as failed:
        await ask(PlatformClient("https://platform.invalid"))
    assert "hush" not in str(failed.value)
