"""Messages that come before there is a dispatcher to take them.

`hello` is said as soon as it can be, and what serves calls is loaded only then. Whoever hears
`hello` may attach at once, so what comes meanwhile is kept, in order. What does not fit is
dropped: `attach` is repeated by who sent it, and so is a call by REST that nobody answers.
"""

from __future__ import annotations

from sidecar.protocol.webpubsub.frames import Message

EARLY_MESSAGES = 256
EARLY_BYTES = 4 * 1024 * 1024


class EarlyMessages:
    """A bounded queue that is emptied once."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._bytes = 0

    def keep(self, message: Message) -> bool:
        """Whether there was room for it."""
        size = self._bytes + len(message.data)
        if len(self._messages) == EARLY_MESSAGES or size > EARLY_BYTES:
            return False
        self._messages.append(message)
        self._bytes = size
        return True

    def take(self) -> list[Message]:
        """All of them, in the order in which they came."""
        messages, self._messages, self._bytes = self._messages, [], 0
        return messages
