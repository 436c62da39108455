"""What both codecs demand of a payload.

Text is UTF-8 and JSON is one JSON value, because the service hands a payload to receivers of
the other subprotocol, where a broken one would break their frame.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from sidecar.errors import ProtocolError
from sidecar.protocol.webpubsub.frames import DataType


def check(data_type: DataType, data: bytes) -> None:
    """Raises `ProtocolError` unless `data` is what `data_type` says."""
    if data_type not in (DataType.TEXT, DataType.JSON):
        return
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ProtocolError(f"{data_type} data that is not UTF-8: {error.reason}") from None
    if data_type is DataType.JSON:
        parse_json(text)


def required(
    content: tuple[DataType, bytes] | None, kind: str, metadata: Mapping[str, str]
) -> tuple[DataType, bytes]:
    """`content`, which only a frame with metadata may lack: that one carries empty text."""
    if content is not None:
        return content
    if metadata:
        return DataType.TEXT, b""
    raise ProtocolError(f"{kind} without data; expected text, binary, protobuf or json")


def parse_json(text: str) -> Any:
    """The value of `text`; NaN and Infinity are refused, as RFC 8259 §6 does."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not JSON: {error}") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
