"""Groups over real sockets: rights, echo, acks, both encodings together."""

from __future__ import annotations

import math
from typing import Any

import pytest

from sidecar.hub import Hub
from sidecar.protocol.webpubsub.frames import (
    JSON_SUBPROTOCOL,
    PROTOBUF_SUBPROTOCOL,
    Ack,
    DataType,
    JoinGroup,
    LeaveGroup,
    Message,
    Ping,
    Pong,
    SendEvent,
    SendToGroup,
)

ANY = ("webpubsub.sendToGroup", "webpubsub.joinLeaveGroup")


async def test_members_get_what_is_sent_until_they_leave(hub: Hub, dial: Any) -> None:
    member = await dial(hub, "m", (), ANY)
    sender = await dial(hub, "s", (), ANY)
    assert await member.ask(JoinGroup("g", 1)) == Ack(1, True)
    assert await sender.ask(SendToGroup("g", b"one", 1)) == Ack(1, True)
    assert await member.message() == Message("group", b"one", "g", sequence_id=1)

    assert await member.ask(LeaveGroup("g", 2)) == Ack(2, True)
    assert await sender.ask(SendToGroup("g", b"two", 2)) == Ack(2, True)
    await member.send(Ping())
    assert await member.receive() == Pong()  # and nothing of what was sent before it


async def test_a_sender_echoes_to_itself_before_the_ack_unless_it_says_no(
    hub: Hub, dial: Any
) -> None:
    sender = await dial(hub, "u", ("g",), ANY)
    sister = await dial(hub, "u", ("g",), ANY)
    await sender.send(SendToGroup("g", b"x", 1))
    assert (await sender.message()).data == b"x"
    assert await sender.receive() == Ack(1, True)
    assert await sender.ask(SendToGroup("g", b"y", 2, no_echo=True)) == Ack(2, True)
    # Another connection of the same user is not spared.
    assert [(await sister.message()).data for _ in range(2)] == [b"x", b"y"]


async def test_a_sender_does_not_become_a_member_and_nobody_need_be_one(
    hub: Hub, dial: Any
) -> None:
    sender = await dial(hub, "s", (), ANY)
    assert await sender.ask(SendToGroup("empty", b"x", 0)) == Ack(0, True)


async def test_without_the_right_nothing_is_done(hub: Hub, dial: Any) -> None:
    member = await dial(hub, "m", ("g",))
    stranger = await dial(hub, "s")
    for frame in (SendToGroup("g", b"x", 1), JoinGroup("g", 1), LeaveGroup("g", 1)):
        ack = await stranger.ask(frame)
        assert (ack.success, ack.error_name) == (False, "Forbidden")
    await stranger.send(SendToGroup("g", b"unnoticed"), JoinGroup("g"), Ping())
    assert await stranger.receive() == Pong()
    await member.send(Ping())
    assert await member.receive() == Pong()


async def test_an_ack_id_succeeds_once_over_all_kinds_of_frames(hub: Hub, dial: Any) -> None:
    peer = await dial(hub, "u", (), ("webpubsub.joinLeaveGroup",))
    largest = 2**64 - 1
    assert await peer.ask(JoinGroup("g", largest)) == Ack(largest, True)
    ack = await peer.ask(LeaveGroup("g", largest))
    assert (ack.success, ack.error_name) == (False, "Duplicate")

    assert (await peer.ask(SendToGroup("g", b"x", 1))).error_name == "Forbidden"
    assert await peer.ask(JoinGroup("h", 1)) == Ack(1, True)  # 1 had failed, so it is free


async def test_a_duplicate_is_not_sent_again(hub: Hub, dial: Any) -> None:
    sender = await dial(hub, "s", (), ANY)
    member = await dial(hub, "m", ("g",), ANY)
    await sender.ask(SendToGroup("g", b"x", 1))
    await sender.ask(SendToGroup("g", b"x", 1))
    await member.message()
    await member.send(Ping())
    assert await member.receive() == Pong()


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(JoinGroup(" ", 1), id="blank-group"),
        pytest.param(SendToGroup("g", b"", 1, ttl=301), id="ttl"),
        pytest.param(SendToGroup("g", b"", 1, metadata={"a b": ""}), id="metadata-key"),
        pytest.param(SendToGroup("g", b"", 1, metadata={"a": "v" * 1025}), id="metadata-value"),
    ],
)
async def test_frames_out_of_bounds_are_bad_requests(hub: Hub, dial: Any, frame: Any) -> None:
    peer = await dial(hub, "u", (), ANY)
    assert (await peer.ask(frame)).error_name == "BadRequest"


async def test_nothing_handles_custom_events(hub: Hub, dial: Any) -> None:
    peer = await dial(hub)
    assert (await peer.ask(SendEvent("done", b"", 1))).error_name == "InternalServerError"


async def test_both_encodings_and_plain_ones_share_a_group(hub: Hub, dial: Any) -> None:
    protocols = [
        JSON_SUBPROTOCOL,
        PROTOBUF_SUBPROTOCOL,
        "json.webpubsub.azure.v1",
        "protobuf.webpubsub.azure.v1",
    ]
    members = [await dial(hub, "m", ("g",), ANY, protocol=name) for name in protocols]
    contents = [
        (DataType.BINARY, b"\x00\xff"),
        (DataType.TEXT, "grüße".encode()),
        (DataType.JSON, b'{"a":[1,null]}'),
        (DataType.PROTOBUF, b"\x0a\x00"),
    ]
    for sender in members[:2]:
        for data_type, data in contents:
            about = {"trace": "a1"}
            await sender.send(SendToGroup("g", data, data_type=data_type, metadata=about))
            for member in members:
                message = await member.message()
                assert (message.data_type, message.data) == (data_type, data)
                assert message.metadata == about
    await members[0].send(SendToGroup("g", b"last"))
    last = [await member.message() for member in members]
    assert [message.sequence_id for message in last] == [9, 9, None, None]
    assert [message.from_user_id for message in last] == ["m", None, "m", None]


async def test_large_messages_arrive_whole_and_in_order(hub: Hub, dial: Any) -> None:
    sender = await dial(hub, "s", (), ANY)
    member = await dial(hub, "m", ("g",))
    chunks = [bytes([number]) * (256 << 10) for number in range(32)]
    for chunk in chunks:
        await sender.send(SendToGroup("g", chunk))
    assert [(await member.message()).data for _ in chunks] == chunks


async def test_acks_can_be_held_back_and_withheld(hub: Hub, dial: Any) -> None:
    peer = await dial(hub, "u", ("g",), ANY)
    hub.ack_delay = 0.25
    await peer.send(SendToGroup("g", b"x", 1, no_echo=True), Ping())
    assert await peer.receive() == Pong()
    assert await peer.receive() == Ack(1, True)
    hub.ack_delay = math.inf
    await peer.send(JoinGroup("h", 2), Ping())
    assert await peer.receive() == Pong()
    hub.ack_delay = 0.0
    assert (await peer.ask(JoinGroup("h", 3))).ack_id == 3


async def test_a_client_that_never_reads_is_not_read_from(hub: Hub, dial: Any) -> None:
    peer = await dial(hub)
    peer.websocket.transport.pause_reading()
    for _ in range(2000):
        await peer.send(Ping())
    peer.websocket.transport.resume_reading()
    assert [await peer.receive() for _ in range(2000)] == [Pong()] * 2000


async def test_the_hub_counts(hub: Hub, dial: Any) -> None:
    sender = await dial(hub, "s", (), ANY)
    await dial(hub, "m", ("g",))
    await dial(hub, "m", ("g",))
    await sender.ask(SendToGroup("g", b"12345", 1))
    stats = hub.stats()
    assert (stats.connections, stats.sessions) == (3, 3)
    traffic = stats.traffic
    assert (traffic.messages_in, traffic.bytes_in) == (1, 5)
    assert (traffic.messages_out, traffic.bytes_out) == (2, 10)
