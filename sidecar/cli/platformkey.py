"""What a platform key gets at the platform endpoint, for `sidecar token`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from sidecar.cli.keyfile import PlatformKey
from sidecar.errors import SettingsError

TIME = 20.0  # seconds for one request


def start_run(key: PlatformKey, run: str) -> dict[str, Any]:
    """A run token for the sidecar of `run`, which begins with it. Raises `SettingsError`."""
    return _post(key, f"runs/{run}", {}, needs={"run_token": str})


def controller_token(
    key: PlatformKey, controller: str, run: str, *, watch: bool, lifetime: float
) -> dict[str, Any]:
    """A hub token for a controller. Raises `SettingsError`."""
    now = time.time()
    body = {"runs": [run], "watch": watch, "lifetime": lifetime}
    needs = {"url": str, "token": str, "expires_in": (int, float)}
    answer = _post(key, f"controllers/{controller}", body, needs=needs)
    return {
        "run": run,
        "controller": controller,
        "url": answer["url"],
        "token": answer["token"],
        "expires_at": now + answer["expires_in"],
    }


def _post(
    key: PlatformKey, path: str, body: dict[str, Any], *, needs: Mapping[str, Any]
) -> dict[str, Any]:
    """The answer, in which each member that is needed has its type."""
    import httpx

    from sidecar.platform.answers import check_endpoint
    from sidecar.tokens.forms import is_loopback

    endpoint = check_endpoint(key.endpoint)
    is_here = is_loopback(urlsplit(endpoint).hostname or "")
    try:
        answer = httpx.post(
            f"{endpoint}/v1/{path}",
            json=body,
            headers={"Authorization": f"Bearer {key.key}"},
            timeout=TIME,
            trust_env=not is_here,
        )
        content = answer.json()
        if answer.status_code == 200 and isinstance(content, dict):
            for name, kind in needs.items():
                if not isinstance(content.get(name), kind):
                    raise ValueError(f"`{name}` is missing, or of another type")
            return content
        word = content.get("message") or content.get("error")
    except (httpx.HTTPError, ValueError, AttributeError, RecursionError) as error:
        raise SettingsError(f"{endpoint}: no answer of an endpoint: {error}") from None
    raise SettingsError(f"{endpoint}: HTTP {answer.status_code}, {word}")
