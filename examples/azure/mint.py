"""Mint the token of a sidecar or of a controller for Azure Web PubSub, with Microsoft's SDK.

    pip install sandbox-sidecar azure-messaging-webpubsubservice
    export WEBPUBSUB_CONNECTION_STRING='Endpoint=https://NAME.webpubsub.azure.com;AccessKey=...'
    python examples/azure/mint.py RUN                         for the sidecar of the run
    python examples/azure/mint.py RUN CONTROLLER              for a controller
    python examples/azure/mint.py RUN CONTROLLER watch        for one that may only look

It prints a client URL with the token in it, which is a secret. It grants what `sidecar token`
grants: `sidecar.protocol.names` says what that is.
"""

import os
import sys

from azure.messaging.webpubsubservice import WebPubSubServiceClient

from sidecar.protocol.names import Grant, Scope, controller_grant, sidecar_grant

HUB = "sidecar"  # hubs need not be created: the first who dials one makes it
MINUTES = 60


def mint(connection_string: str, grant: Grant) -> str:
    service = WebPubSubServiceClient.from_connection_string(connection_string, hub=HUB)
    token = service.get_client_access_token(
        user_id=grant.user_id,
        groups=list(grant.groups),
        roles=list(grant.roles),
        minutes_to_expire=MINUTES,
    )
    return str(token["url"])


def main(run: str, controller: str = "", scope: str = Scope.FULL) -> None:
    grant = controller_grant(controller, [run], Scope(scope)) if controller else sidecar_grant(run)
    print(mint(os.environ["WEBPUBSUB_CONNECTION_STRING"], grant))


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 4:
        sys.exit(f"usage: WEBPUBSUB_CONNECTION_STRING=... {sys.argv[0]} RUN [CONTROLLER [watch]]")
    main(*sys.argv[1:])
