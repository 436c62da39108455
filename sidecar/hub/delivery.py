"""One message on its way to any number of connections."""

from __future__ import annotations

from collections.abc import Callable

from sidecar.protocol.webpubsub.frames import Codec, Message


class Delivery:
    """A message, encoded at most once for each encoding, shared by all who wait for it."""

    __slots__ = ("_templates", "expires_at", "message", "size")

    def __init__(self, message: Message, expires_at: float | None = None) -> None:
        self.message = message
        self.size = len(message.data)
        self.expires_at = expires_at
        self._templates: dict[bool, Callable[[int | None], bytes | str]] = {}

    def has_expired(self, now: float) -> bool:
        return self.expires_at is not None and now >= self.expires_at

    def encode(self, codec: Codec, sequence_id: int | None) -> bytes | str:
        template = self._templates.get(codec.is_binary)
        if template is None:  # a plain subprotocol has the frames of its reliable sister
            template = self._templates[codec.is_binary] = codec.template(self.message)
        return template(sequence_id)
