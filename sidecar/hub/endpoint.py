"""The route of clients: who may connect, who takes up an old session, in which subprotocol.

A recovery is decided before anything else and without a look at the access token, which may have
expired meanwhile. It is refused after the upgrade, by close code 1008, because clients take an
HTTP error as a reason to try again. A new connection is refused before the upgrade, by 401.
"""

from __future__ import annotations

from typing import cast

from starlette.responses import Response
from starlette.websockets import WebSocket

from sidecar.hub.hub import Hub
from sidecar.hub.link import Socket, SocketLink
from sidecar.hub.responses import error_response
from sidecar.hub.session import HubSession
from sidecar.hub.tokens import TokenError
from sidecar.protocol.webpubsub import SUBPROTOCOLS, codec_for

SOCKET = "sidecar.hub.socket"  # the key of the server's socket among the ASGI extensions
POLICY_VIOLATION = 1008


class ClientEndpoint:
    """Serves `/client/hubs/{hub}` and `/client/?hub={hub}`."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def serve(self, websocket: WebSocket) -> None:
        offered = websocket.scope["subprotocols"]
        subprotocol = next((name for name in offered if name.lower() in SUBPROTOCOLS), None)
        if websocket.query_params.get("awps_connection_id"):
            session = await self._recover(websocket, subprotocol)
        else:
            session = await self._connect(websocket, subprotocol)
        if session is not None:
            await self._run(websocket, session)

    async def _recover(self, websocket: WebSocket, offered: str | None) -> HubSession | None:
        query = websocket.query_params
        session = None
        if self._is_here(websocket):
            session = self._hub.recover(
                query["awps_connection_id"], query.get("awps_reconnection_token", "")
            )
        if session is not None:  # it keeps its subprotocol; the client's spelling is echoed
            own = session.codec.subprotocol
            offered = offered if offered and offered.lower() == own else own
        await websocket.accept(offered)
        if session is None or not session.can_recover(now=self._hub.clock.now()):
            await websocket.close(POLICY_VIOLATION, "the connection cannot be recovered")
            return None
        return session

    async def _connect(self, websocket: WebSocket, offered: str | None) -> HubSession | None:
        if not self._is_here(websocket):
            await websocket.send_denial_response(error_response(404, "NotFound", "no such hub"))
            return None
        if offered is None:
            names = ", ".join(SUBPROTOCOLS)
            await websocket.send_denial_response(
                error_response(400, "BadRequest", f"expected one of the subprotocols {names}")
            )
            return None
        try:
            admission = self._hub.check(_token(websocket), websocket.headers.get("host"))
        except TokenError as error:
            await websocket.send_denial_response(_denial(error))
            return None
        await websocket.accept(offered)
        return self._hub.open(admission, codec_for(offered))

    async def _run(self, websocket: WebSocket, session: HubSession) -> None:
        hub = self._hub
        socket = cast(Socket, websocket.scope["extensions"][SOCKET])
        link = SocketLink(websocket, socket, session, hub.relay, hub.faults, hub.clock)
        hub.attach(link)
        is_final = False
        try:
            is_final = await link.run()
        finally:
            hub.detach(link, is_final=is_final)
            link.ended.set()

    def _is_here(self, websocket: WebSocket) -> bool:
        name = websocket.path_params.get("hub") or websocket.query_params.get("hub", "")
        return name.lower() == self._hub.settings.hub.lower()


def _token(websocket: WebSocket) -> str:
    scheme, _, token = websocket.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    return websocket.query_params.get("access_token", "")


def _denial(error: TokenError) -> Response:
    return error_response(
        error.status, "Unauthorized" if error.status == 401 else "BadRequest", str(error)
    )
