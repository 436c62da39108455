"""`sidecar hub`: the embedded hub alone, for tests and for developers with several sidecars."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sidecar.cli import loop, profiles
from sidecar.cli.keyfile import read_key, write_key
from sidecar.cli.log import log_to_stderr
from sidecar.cli.output import show

if TYPE_CHECKING:
    from sidecar.hub import Address, Hub

SIGNALLED = 128  # a status above it: a signal ended us, which is how a hub ends


@click.command()
@click.option("--host", default="127.0.0.1", metavar="ADDRESS", help="Default: 127.0.0.1.")
@click.option("--port", default=0, metavar="PORT", help="Default: a free one.")
@click.option("--hub-name", default="sidecar", metavar="NAME", help="Default: sidecar.")
@click.option("--endpoint", metavar="URL", help="How others reach it, if not by http://host:port.")
@click.option("--key-file", metavar="FILE", help="Where its key is kept. Default: a file of ours.")
@click.option("--faults", is_flag=True, help="Serve /faults too: drops, delays, outages on demand.")
@click.option("--show-key", is_flag=True, help="Print the connection string with its key.")
def hub(
    host: str,
    port: int,
    hub_name: str,
    endpoint: str | None,
    key_file: str | None,
    faults: bool,
    show_key: bool,
) -> int:
    """A stand-in for Azure Web PubSub in memory, until Ctrl-C: its subprotocols and its REST paths,
    for clients and SDKs alike.

    The connection string goes to a file (mode 0600) that `sidecar token --key-file` reads. A key
    file that exists keeps its key, so that tokens outlive a restart.

    \b
    Examples:
      sidecar hub --port 8080 --key-file hub.key
      sidecar token --key-file hub.key --run demo --sidecar > token
      sidecar run --run demo --token-file token
    """
    from sidecar.hub import Hub, HubSettings

    log_to_stderr("warning")
    path = Path(key_file) if key_file else None
    key = read_key(path).access_key if path is not None and path.exists() else None
    settings = HubSettings(
        host=host, port=port, hub=hub_name, access_key=key, endpoint=endpoint, faults=faults
    )
    server = Hub(settings)
    status = loop.run(partial(_serve, server, path, show_key))
    return 0 if status > SIGNALLED else status


async def _serve(server: Hub, path: Path | None, show_key: bool) -> None:
    import anyio

    from sidecar.hub import serve

    async with serve(server) as address:
        where = path or profiles.folder_of_profiles() / f"hub-{server.port}.key"
        write_key(where, address.connection_string)
        try:
            _announce(address, where, show_key)
            await anyio.sleep_forever()
        finally:
            if path is None:
                where.unlink(missing_ok=True)


def _announce(address: Address, path: Path, show_key: bool) -> None:
    show(f"hub                {address.url}")
    show(f"clients            {address.client_url}")
    where = address.connection_string if show_key else f"in {path}"
    show(f"connection string  {where}")
