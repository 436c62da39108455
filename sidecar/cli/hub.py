"""`sidecar hub`: the embedded hub alone, for tests and for developers with several sidecars."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sidecar.cli import loop, profiles
from sidecar.cli.keyfile import (
    PlatformKey,
    read_key,
    read_platform_key,
    write_key,
    write_platform_key,
)
from sidecar.cli.log import log_to_stderr
from sidecar.cli.output import show

if TYPE_CHECKING:
    from sidecar.hub import Address, Hub

SIGNALLED = 128  # a status above it: a signal ended us, which is how a hub ends
HOUR, DAY = 3600.0, 86400.0


@dataclass(frozen=True, slots=True)
class _Files:
    """Where keys are kept; None: in files of ours, which go when the hub does."""

    key: Path | None
    platform_key: Path | None


@click.command()
@click.option("--host", default="127.0.0.1", metavar="ADDRESS", help="Default: 127.0.0.1.")
@click.option("--port", default=0, metavar="PORT", help="Default: a free one.")
@click.option("--hub-name", default="sidecar", metavar="NAME", help="Default: sidecar.")
@click.option("--endpoint", metavar="URL", help="How others reach it, if not by http://host:port.")
@click.option("--key-file", metavar="FILE", help="Where its key is kept. Default: a file of ours.")
@click.option("--platform", is_flag=True, help="Serve /platform too, where sidecars get tokens.")
@click.option("--platform-key-file", metavar="FILE", help="Where the platform's key is kept.")
@click.option("--platform-state", metavar="FILE", help="What /platform knows, for a restart.")
@click.option(
    "--token-life",
    default=300.0,
    type=click.FloatRange(1, DAY),
    metavar="SECONDS",
    help="Of the tokens that /platform gives to sidecars. [300]",
)
@click.option("--faults", is_flag=True, help="Serve /faults too: drops, delays, outages on demand.")
@click.option("--show-key", is_flag=True, help="Print the connection string with its key.")
def hub(
    host: str,
    port: int,
    hub_name: str,
    endpoint: str | None,
    key_file: str | None,
    platform: bool,
    platform_key_file: str | None,
    platform_state: str | None,
    token_life: float,
    faults: bool,
    show_key: bool,
) -> int:
    """A stand-in for Azure Web PubSub in memory, until Ctrl-C: its subprotocols and its REST paths,
    for clients and SDKs alike.

    The connection string goes to a file (mode 0600) that `sidecar token --key-file` reads. A key
    file that exists keeps its key, so that tokens outlive a restart.

    With --platform it stands in for the platform as well: a sidecar gets its tokens there, by a
    run token, and renews them. The platform key that starts runs goes to a file too; with
    --platform-state a hub that is started again knows the runs.

    \b
    Examples:
      sidecar hub --port 8080 --key-file hub.key
      sidecar token --key-file hub.key --run demo --sidecar > token
      sidecar run --run demo --token-file token
    \b
      sidecar hub --port 8080 --platform --platform-key-file platform.key
      sidecar token --platform-key-file platform.key --run demo --sidecar > run-token
      sidecar run --run demo --endpoint http://127.0.0.1:8080/platform --run-token-file run-token
    """
    from sidecar.hub import Hub, HubSettings

    log_to_stderr("warning")
    files = _Files(_path(key_file), _path(platform_key_file))
    key = read_key(files.key).access_key if files.key and files.key.exists() else None
    settings = HubSettings(
        host=host,
        port=port,
        hub=hub_name,
        access_key=key,
        endpoint=endpoint,
        faults=faults,
        platform=platform or platform_key_file is not None or platform_state is not None,
        platform_state=_path(platform_state),
        token_life=token_life,
        run_token_life=max(HOUR, 2 * token_life),
    )
    status = loop.run(partial(_serve, Hub(settings), files, show_key))
    return 0 if status > SIGNALLED else status


def _path(name: str | None) -> Path | None:
    return None if name is None else Path(name)


async def _serve(server: Hub, files: _Files, show_key: bool) -> None:
    import anyio

    from sidecar.hub import serve

    async with serve(server) as address:
        ours = profiles.folder_of_profiles()
        where = files.key or ours / f"hub-{server.port}.key"
        platform_where = files.platform_key or ours / f"platform-{server.port}.key"
        write_key(where, address.connection_string)
        if server.settings.platform:
            _write_platform_key(server, platform_where)
        try:
            _announce(server, address, where, platform_where, show_key)
            await anyio.sleep_forever()
        finally:
            if files.key is None:
                where.unlink(missing_ok=True)
            if files.platform_key is None:
                platform_where.unlink(missing_ok=True)


def _write_platform_key(server: Hub, path: Path) -> None:
    """The key that is there already goes on to be good, at the endpoint that we are. Without one,
    nobody is known to have any of those before."""
    key = read_platform_key(path).key if path.exists() else ""
    if not server.platform.adopt_key(key):
        for id in tuple(server.platform.keys):
            server.platform.retire_key(id)
        key = server.platform.add_key()
    write_platform_key(path, PlatformKey(server.address.endpoint, key))


def _announce(
    server: Hub, address: Address, path: Path, platform_path: Path, show_key: bool
) -> None:
    show(f"hub                {address.url}")
    show(f"clients            {address.client_url}")
    where = address.connection_string if show_key else f"in {path}"
    show(f"connection string  {where}")
    if server.settings.platform:
        show(f"platform endpoint  {address.endpoint}")
        show(f"platform key       in {platform_path}")
    if server.settings.faults:
        show(f"faults             {address.url}/faults")
