"""A server that gives one answer to whoever asks, by the first word of the path or of the host.

    ws://127.0.0.1:PORT/WORD/...    and, for a proxy, CONNECT WORD.example:443

It is no hub: it stands for all that a sidecar may find in the place of one.
"""

from __future__ import annotations

import base64
import hashlib
import re
import socketserver
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import formatdate
from time import time

from sidecar.protocol.webpubsub.frames import PROTOBUF_SUBPROTOCOL

TLS_HANDSHAKE = 22  # a record of this type comes first (RFC 8446 §5.1)
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    answers: Mapping[str, str] = {}
    context: ssl.SSLContext | None = None


class _Handler(socketserver.StreamRequestHandler):
    server: _Server

    def setup(self) -> None:
        if self.server.context is not None:
            self.request = self.server.context.wrap_socket(self.request, server_side=True)
        super().setup()

    def finish(self) -> None:
        super().finish()
        self.request.close()  # the one that TLS was wrapped around is closed by the server

    def handle(self) -> None:
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            line = self.rfile.readline()
            if not line or line[0] == TLS_HANDSHAKE:
                self.wfile.write(b"HTTP/1.1 400 X\r\n\r\n")
                return
            request += line
        text = request.decode()
        found = re.match(r"\w+ /?([\w-]+)", text)
        assert found is not None, text
        self.wfile.write(_answer(self.server.answers[found[1]], text).encode())
        self.rfile.read()  # until the other side has had enough


def _answer(kind: str, request: str) -> str:
    """`401`, or `401 10800`: with a `Date` so many seconds from now."""
    status, _, offset = kind.partition(" ")
    lines = [
        f"HTTP/1.1 {status} X",
        f"Date: {formatdate(time() + float(offset or 0), usegmt=True)}",
    ]
    if status == "101":
        key = re.search(r"Sec-WebSocket-Key: (\S+)", request)
        assert key is not None
        accept = base64.b64encode(hashlib.sha1((key[1] + _GUID).encode()).digest()).decode()
        lines += ["Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {accept}"]
        lines += [f"Sec-WebSocket-Protocol: {PROTOBUF_SUBPROTOCOL}"]
    else:
        lines += ["Content-Length: 0"]
    return "\r\n".join(lines) + "\r\n\r\n"


@contextmanager
def answering(
    answers: Mapping[str, str], *, host: str = "127.0.0.1", context: ssl.SSLContext | None = None
) -> Iterator[int]:
    """Its port."""
    with _Server((host, 0), _Handler) as server:
        server.answers, server.context = answers, context
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # TLS that failed
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield int(server.server_address[1])
        server.shutdown()
        thread.join()
