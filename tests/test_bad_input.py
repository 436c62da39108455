"""What no client of ours would send: each gets the error it deserves and disturbs nobody else.

Every row runs against a whole stack. Beside it another controller has a program running, and
after the row that program still answers, as does the sidecar.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from rawpeer import RawPeer, raw_peer
from rest import send_to_sidecar
from stack import RUN, Stack, open_stack, until

from sidecar.client import CallError, Controller
from sidecar.errors import Code, Retry, SettingsError, Started, default_retry
from sidecar.protocol import envelope as wire
from sidecar.protocol.limits import OPEN_CALLS, STREAM_CREDIT
from sidecar.protocol.names import Scope, controller_grant, sidecar_grant
from sidecar.settings import load

FOREVER = ["sleep", "600"]


@asynccontextmanager
async def undisturbed(folder: Path) -> AsyncIterator[tuple[Stack, RawPeer]]:
    """A stack with an attached raw peer; at the end, nobody else has noticed anything."""
    async with open_stack(folder) as stack:
        other = await stack.attach("other")
        async with other.process(["cat"], stdin=True) as program:
            async with raw_peer(stack.hub) as peer:
                await peer.attach()
                yield stack, peer
            assert await other.ping() < 2.0
            await program.write(b"still here")
            program.close_stdin()
            assert [chunk async for _, chunk in program.output()] == [b"still here"]
            assert (await program.wait()).status == 0
        assert stack.sidecar.dispatcher.open_calls == 0


def assert_error(error: CallError, code: Code, started: Started = Started.NO) -> None:
    assert (error.code, error.started, error.retry) == (code, started, default_retry(code)), error
    assert error.message


NESTED = b"\x81" * 17 + b"\x00"  # an array in an array in ... 17 of them

CALLS = [
    pytest.param("files.reed", {}, Code.UNKNOWN_COMMAND, id="unknown-command"),
    pytest.param("", {}, Code.UNKNOWN_COMMAND, id="no-command"),
    pytest.param("sidecar.ping", b"\xa1\x01", Code.INVALID, id="arguments-cut-off"),
    pytest.param("sidecar.ping", NESTED, Code.INVALID, id="arguments-too-deep"),
    pytest.param("sidecar.ping", b"\xc1\x00", Code.INVALID, id="arguments-with-a-tag"),
    pytest.param("sidecar.ping", b"", Code.INVALID, id="arguments-empty"),
    pytest.param("sidecar.ping", b"\xa0\xa0", Code.INVALID, id="arguments-and-more"),
    pytest.param("sidecar.ping", [], Code.INVALID, id="arguments-a-list"),
    pytest.param("sidecar.ping", {1: 2}, Code.INVALID, id="argument-without-a-name"),
    pytest.param("files.read", {"path": 5}, Code.INVALID, id="path-a-number"),
    pytest.param("files.read", {}, Code.INVALID, id="path-missing"),
    pytest.param("files.read", {"path": "a", "pth": 1}, Code.INVALID, id="unknown-argument"),
    pytest.param("files.read", {"path": "a", "offset": -1}, Code.INVALID, id="offset-negative"),
    pytest.param("files.read", {"path": "a", "offset": 1 << 64}, Code.INVALID, id="offset-2-64"),
    pytest.param("files.read", {"path": "a", "offset": True}, Code.INVALID, id="offset-true"),
    pytest.param("files.read", {"path": "a", "length": -1}, Code.INVALID, id="length-negative"),
    pytest.param("files.read", {"path": "small", "offset": 9}, Code.INVALID, id="offset-behind"),
    pytest.param("files.read", {"path": "../x"}, Code.OUTSIDE, id="path-up"),
    pytest.param("files.read", {"path": "/etc/passwd"}, Code.OUTSIDE, id="path-absolute"),
    pytest.param("files.read", {"path": "link/passwd"}, Code.OUTSIDE, id="path-through-a-link"),
    pytest.param("files.read", {"path": "a\0b"}, Code.INVALID, id="path-with-a-zero"),
    pytest.param("files.read", {"path": "x" * 300}, Code.INVALID, id="name-too-long"),
    pytest.param("files.read", {"path": "x" * 8193}, Code.INVALID, id="path-too-long"),
    pytest.param("files.read", {"path": "missing"}, Code.NOT_FOUND, id="file-missing"),
    pytest.param("files.read", {"path": b"\xff"}, Code.NOT_FOUND, id="file-missing-bytes"),
    pytest.param("files.read", {"path": "folder"}, Code.IS_DIRECTORY, id="file-a-folder"),
    pytest.param("files.read", {"path": "small/x"}, Code.NOT_DIRECTORY, id="folder-a-file"),
    pytest.param("files.read", {"path": "fifo"}, Code.UNSUPPORTED, id="file-a-fifo"),
    pytest.param("files.list", {"limit": 0}, Code.INVALID, id="limit-zero"),
    pytest.param("files.list", {"limit": -5}, Code.INVALID, id="limit-negative"),
    pytest.param("exec.run", {}, Code.INVALID, id="no-program"),
    pytest.param("exec.run", {"argv": ["a"], "shell": "a"}, Code.INVALID, id="two-programs"),
    pytest.param("exec.run", {"argv": []}, Code.INVALID, id="argv-empty"),
    pytest.param("exec.run", {"argv": "true"}, Code.INVALID, id="argv-text"),
    pytest.param("exec.run", {"shell": "true", "timeout": 0}, Code.INVALID, id="timeout-zero"),
    pytest.param("exec.run", {"shell": "true", "timeout": -1.0}, Code.INVALID, id="timeout-minus"),
    pytest.param(
        "exec.run", {"shell": "true", "timeout": float("nan")}, Code.INVALID, id="timeout-nan"
    ),
    pytest.param(
        "exec.run", {"shell": "true", "timeout": float("inf")}, Code.INVALID, id="timeout-inf"
    ),
]

# The receipt says `started` before they act, so that is what the error says, too, unless the
# one who acts knows better.
ACTS = [
    pytest.param("exec.run", {"argv": ["no-such-program"]}, Code.NOT_FOUND, Started.NO),
    pytest.param("exec.run", {"argv": ["./small"]}, Code.PERMISSION_DENIED, Started.NO),
    pytest.param("exec.run", {"argv": ["true\0"]}, Code.INVALID, Started.NO),
    pytest.param("exec.run", {"shell": "true", "env": {"a=b": "c"}}, Code.INVALID, Started.NO),
    pytest.param("exec.run", {"shell": "true", "cwd": ".."}, Code.OUTSIDE, Started.NO),
    pytest.param("exec.run", {"shell": "true", "cwd": "small"}, Code.NOT_DIRECTORY, Started.NO),
    pytest.param(
        "files.write",
        {"path": "new", "content": b"x", "sha256": bytes(32)},
        Code.DIGEST_MISMATCH,
        Started.YES,
    ),
    pytest.param(
        "files.write", {"path": "new", "content": b"x", "size": 2}, Code.INVALID, Started.YES
    ),
    pytest.param("files.write", {"path": "../x", "content": b""}, Code.OUTSIDE, Started.NO),
    pytest.param("files.move", {"source": "missing", "target": "b"}, Code.NOT_FOUND, Started.NO),
    pytest.param("files.mkdir", {"path": "folder"}, Code.EXISTS, Started.NO),
    pytest.param("files.remove", {"path": "folder"}, Code.NOT_EMPTY, Started.NO),
    pytest.param("files.remove", {"path": ""}, Code.INVALID, Started.NO),
]


def furnish(workspace: Path) -> None:
    (workspace / "folder").mkdir()
    (workspace / "folder" / "child").touch()
    (workspace / "small").write_bytes(b"12345678")
    (workspace / "small").chmod(0o644)
    (workspace / "link").symlink_to("/etc")
    os.mkfifo(workspace / "fifo")


async def answer_to(peer: RawPeer, command: str, arguments: Any) -> CallError:
    raw = {"raw": arguments} if isinstance(arguments, bytes) else {"arguments": arguments}
    return await peer.error(await peer.call(command, **raw))


@pytest.fixture(scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Stack, RawPeer]]:
    """One stack for the rows that are a call and its error."""
    async with undisturbed(tmp_path_factory.mktemp("shared")) as (stack, peer):
        furnish(stack.workspace)
        yield stack, peer


@pytest.mark.parametrize("command, arguments, code", CALLS)
async def test_a_call_that_cannot_be_run_says_why(
    command: str, arguments: Any, code: Code, shared: tuple[Stack, RawPeer]
) -> None:
    _, peer = shared
    assert_error(await answer_to(peer, command, arguments), code)


@pytest.mark.parametrize("command, arguments, code, started", ACTS)
async def test_a_call_that_fails_says_whether_it_began_to_act(
    command: str, arguments: Any, code: Code, started: Started, shared: tuple[Stack, RawPeer]
) -> None:
    stack, peer = shared
    before = sorted(stack.workspace.rglob("*"))
    assert_error(await answer_to(peer, command, arguments), code, started)
    assert sorted(stack.workspace.rglob("*")) == before


# What has no known sender ----------------------------------------------------------------


def call_of(peer: RawPeer) -> bytes:
    return wire.encode(wire.Call(peer.new_id(), "sidecar.ping", b"\xa0"))


STRANGERS: list[Any] = [
    pytest.param(lambda peer: b"\xff\xff", "broken", id="no-cbor"),
    pytest.param(lambda peer: b"\x00", "broken", id="no-envelope"),
    pytest.param(lambda peer: b"\x81" * 5000, "broken", id="depth-bomb"),
    pytest.param(lambda peer: b"\x9b" + b"\xff" * 8, "broken", id="array-of-2-64"),
    pytest.param(lambda peer: b"\x5b" + b"\x7f" * 8, "broken", id="bytes-of-2-63"),
    pytest.param(lambda peer: b"\xd8\x1c\x80" * 100, "broken", id="shared-references"),
    pytest.param(lambda peer: peer.head() + b"\x00", "broken", id="broken-behind-a-good-head"),
    pytest.param(
        lambda peer: wire.encode(wire.Head(bytes(16), 0, 1)) + call_of(peer),
        "attachment",
        id="attachment-nobody-has",
    ),
    pytest.param(call_of, "stray", id="call-without-attachment"),
    pytest.param(lambda peer: wire.encode(wire.Detach()), "stray", id="detach-without-attachment"),
    pytest.param(lambda peer: b"\x82\x18\x3f\xa0", "stray", id="unknown-without-attachment"),
    pytest.param(
        lambda peer: wire.encode(wire.Attach("no.id", peer.new_id(), [1], [1 << 20, 8])),
        "controller",
        id="controller-id-with-a-dot",
    ),
    pytest.param(
        lambda peer: wire.encode(wire.Attach("*", peer.new_id(), [1], [1 << 20, 8])),
        "controller",
        id="controller-id-a-star",
    ),
    pytest.param(
        lambda peer: peer.head() + wire.encode(wire.Accepted(peer.new_id())),
        "stray",
        id="what-only-sidecars-say",
    ),
    pytest.param(
        lambda peer: peer.head() + wire.dumps([33, {0: peer.new_id(), 1: 1, 2: -1, 3: -1}]),
        "broken",
        id="credit-below-zero",
    ),
    pytest.param(
        lambda peer: peer.head() + wire.dumps([6, {0: -1}]),
        "broken",
        id="ack-below-zero",
    ),
]


@pytest.mark.parametrize("message, why", STRANGERS)
async def test_what_has_no_sender_is_dropped_counted_and_answered_by_hello(
    message: Callable[[RawPeer], bytes], why: str, tmp_path: Path
) -> None:
    async with undisturbed(tmp_path) as (stack, peer):
        stack.sidecar.exchange._strangers._said_hello = 0.0  # its own, at the start, was long ago
        await peer.publish(message(peer))
        await peer.expect(wire.Hello)
        info = await peer.result(await peer.call("sidecar.info"))
        assert info["dropped"] == {why: 1}


@pytest.mark.parametrize("reader", [None, "platform"])
async def test_an_ack_for_what_was_never_sent_is_counted_and_lets_nothing_go(
    reader: str | None, tmp_path: Path
) -> None:
    async with open_stack(tmp_path) as stack, raw_peer(stack.hub) as peer:
        await peer.attach(after=0, reader=reader)
        await peer.expect(wire.Event)
        await peer.send(wire.EventAck(7), wire.EventAck((1 << 64) - 1))
        info = await peer.result(await peer.call("sidecar.info"))
        assert info["dropped"] == {"ack": 2}
        assert info["events"]["acked"] == (None if reader is None else 0)
        await peer.send(wire.EventAck(1))
        info = await peer.result(await peer.call("sidecar.info"))
        assert info["events"]["acked"] == (None if reader is None else 1)


async def test_strangers_are_answered_at_most_once_a_second(tmp_path: Path) -> None:
    async with undisturbed(tmp_path) as (stack, peer):
        stack.sidecar.exchange._strangers._said_hello = 0.0
        for _ in range(50):
            await peer.publish(b"\xff")
        await peer.expect(wire.Hello)
        await until(lambda: stack.sidecar.exchange.dropped["broken"] == 50)
        with pytest.raises(TimeoutError):
            await peer.expect(wire.Hello, timeout=0.3)


# Envelopes of an attachment ---------------------------------------------------------------


async def test_an_unknown_envelope_below_64_is_answered_and_one_above_is_not(
    tmp_path: Path,
) -> None:
    async with undisturbed(tmp_path) as (_, peer):
        await peer.send(b"\x82\x18\x7f\xa0", b"\x82\x18\x3f\xa0")
        assert (await peer.expect(wire.Unsupported)).type == 63
        await peer.result(await peer.call("sidecar.ping"))


@pytest.mark.parametrize(
    "request_, code",
    [
        pytest.param({"versions": [2]}, Code.UNSUPPORTED, id="version-of-the-future"),
        pytest.param({"versions": []}, Code.UNSUPPORTED, id="no-version"),
        pytest.param({"window": [100, 8]}, Code.INVALID, id="window-too-small"),
        pytest.param({"window": [1 << 20, 0]}, Code.INVALID, id="window-of-no-messages"),
        pytest.param({"after": 10**6}, Code.INVALID, id="cursor-from-the-future"),
        pytest.param({"after": 0, "reader": "no.id"}, Code.INVALID, id="reader-with-a-dot"),
        pytest.param({"reader": "platform"}, Code.INVALID, id="reader-without-cursor"),
    ],
)
async def test_an_attachment_that_cannot_be_had_is_refused(
    request_: dict[str, Any], code: Code, tmp_path: Path
) -> None:
    async with undisturbed(tmp_path) as (stack, peer):
        nonce = peer.new_id()
        fields = {"versions": [1], "window": [1 << 20, 128], **request_}
        await peer.publish(wire.encode(wire.Attach("raw", nonce, **fields)))
        refused = await peer.expect(wire.Refused, nonce=nonce)
        assert_error(wire.error_from(refused.error), code)
        assert stack.sidecar.exchange.attached == 2
        assert stack.sidecar.exchange.readers == 0


async def test_an_id_that_is_no_uuid7_is_invalid(tmp_path: Path) -> None:
    async with undisturbed(tmp_path) as (_, peer):
        error = await peer.error(await peer.call("sidecar.ping", id=bytes(range(16))))
        assert_error(error, Code.INVALID)
        await peer.send(wire.Cancel(bytes(16)))
        assert_error(await peer.error(bytes(16)), Code.INVALID)


async def test_the_same_id_with_other_arguments_is_a_conflict(tmp_path: Path) -> None:
    async with undisturbed(tmp_path) as (_, peer):
        id = await peer.call("sidecar.ping", {"payload": b"1"})
        assert (await peer.result(id))["pong"] == b"1"
        await peer.call("sidecar.ping", {"payload": b"2"}, id=id)
        assert_error(await peer.error(id), Code.CONFLICT)
        await peer.call("sidecar.ping", {"payload": b"1"}, id=id)
        assert (await peer.result(id))["pong"] == b"1"

        running = await peer.call("exec.run", {"argv": FOREVER})
        await peer.expect(wire.Accepted, id=running)
        await peer.call("exec.run", {"argv": ["true"]}, id=running)
        assert_error(await peer.error(running), Code.CONFLICT)
        await peer.send(wire.Cancel(running))
        assert_error(await peer.error(running), Code.CANCELLED, Started.YES)


async def test_a_cancel_that_overtakes_its_call_fences_it(tmp_path: Path) -> None:
    async with undisturbed(tmp_path) as (stack, peer):
        id = peer.new_id()
        await peer.send(wire.Cancel(id))
        assert_error(await peer.error(id), Code.CANCELLED)
        await peer.call("exec.run", {"argv": ["touch", "ran"]}, id=id)
        assert_error(await peer.error(id), Code.CANCELLED)
        assert not (stack.workspace / "ran").exists()


async def test_an_ask_for_what_never_came_says_so(tmp_path: Path) -> None:
    async with undisturbed(tmp_path) as (_, peer):
        id = peer.new_id()
        await peer.send(wire.Ask(id, {1: [0, 0, 100]}))
        assert (await peer.expect(wire.State, id=id)).state == "unknown_call"


@pytest.mark.slow
async def test_calls_beyond_the_limit_are_refused_and_the_others_run_on(tmp_path: Path) -> None:
    async with undisturbed(tmp_path) as (_, peer):
        ids = [peer.new_id() for _ in range(OPEN_CALLS + 44)]
        for id in ids:
            await peer.call("exec.run", {"argv": ["cat"], "stdin": "stream"}, id=id)
        refused = ids[OPEN_CALLS - 1 :]  # one of the 256 is the bystander's
        for id in refused:
            assert_error(await peer.error(id), Code.LIMIT)
        await peer.send(*[wire.Cancel(id) for id in ids[: OPEN_CALLS - 1]])
        for id in ids[: OPEN_CALLS - 1]:
            assert_error(await peer.error(id), Code.CANCELLED, Started.YES)


# Streams ---------------------------------------------------------------------------------


async def begin_write(peer: RawPeer) -> bytes:
    id = await peer.call("files.write", {"path": "target"}, credit=1 << 20)
    await peer.expect(wire.Accepted, id=id)
    return id


EMPTY = hashlib.sha256(b"").digest()
STREAMS = [
    pytest.param([lambda id: wire.encode_data(id, 3, 0, bytes(2000)),
                  lambda id: wire.encode(wire.End(id, 3, 5, 0, EMPTY))],
                 Code.INVALID, id="end-below-what-came"),
    pytest.param([lambda id: wire.encode_data(id, 3, 0, b"abc"),
                  lambda id: wire.encode(wire.End(id, 3, 3, 0, EMPTY))],
                 Code.DIGEST_MISMATCH, id="digest-of-something-else"),
    pytest.param([lambda id: wire.encode(wire.End(id, 3, 0, 0, EMPTY)),
                  lambda id: wire.encode_data(id, 3, 0, b"abc")],
                 None, id="data-behind-the-end"),
    pytest.param([lambda id: wire.encode(wire.End(id, 3, 9, 0, EMPTY)),
                  lambda id: wire.encode_data(id, 3, 0, bytes(10))],
                 Code.INVALID, id="data-beyond-the-end"),
    pytest.param([lambda id: wire.encode_data(id, 3, STREAM_CREDIT - 1, b"ab")],
                 Code.LIMIT, id="data-beyond-its-credit"),
    pytest.param([lambda id: wire.encode_data(id, 3, (1 << 64) - 1, b"ab")],
                 Code.LIMIT, id="data-at-the-end-of-numbers"),
    pytest.param([lambda id: wire.encode(wire.Skip(id, 3, 10, 5))],
                 Code.INVALID, id="skip-backwards"),
    pytest.param([lambda id: wire.encode(wire.Skip(id, 3, 0, 5)),
                  lambda id: wire.encode(wire.End(id, 3, 5, 5, EMPTY))],
                 Code.INVALID, id="a-file-with-a-hole"),
    pytest.param([lambda id: wire.encode(wire.Reset(id, 3, "cancelled", "enough"))],
                 Code.CANCELLED, id="broken-off"),
]  # fmt: skip


@pytest.mark.parametrize("messages, code", STREAMS)
async def test_a_stream_that_breaks_the_rules_ends_its_call_and_leaves_no_file(
    messages: list[Callable[[bytes], bytes]], code: Code | None, tmp_path: Path
) -> None:
    async with undisturbed(tmp_path) as (stack, peer):
        id = await begin_write(peer)
        for message in messages:
            await peer.send(message(id))
        if code is None:
            assert (await peer.result(id))["size"] == 0
            return
        error = await peer.error(id)
        assert (error.code, error.retry) == (code, default_retry(code))
        assert list(stack.workspace.iterdir()) == []


async def test_answers_to_streams_that_are_not_there_break_nothing(tmp_path: Path) -> None:
    async with undisturbed(tmp_path) as (_, peer):
        id = peer.new_id()
        await peer.send(
            wire.encode_data(id, 0, 0, b"abc"),
            wire.Credit(id, 1, 1 << 60, 1 << 60),
            wire.Rewind(id, 1, 5),
            wire.Blocked(id, 1, 5),
            wire.Reset(id, 1, "no_such_code", "x"),
        )
        assert (await peer.expect(wire.Reset, id=id, n=0)).code == "unknown_call"


async def test_lies_about_a_stream_we_receive_break_that_stream_only(tmp_path: Path) -> None:
    async with undisturbed(tmp_path) as (_, peer):
        id = await peer.call("exec.run", {"shell": "echo hi; cat", "stdin": "stream"}, credit=10)
        await peer.expect(wire.Data, id=id)
        await peer.send(wire.Credit(id, 1, 1 << 40, 1 << 41))  # received what was never sent
        assert (await peer.expect(wire.Reset, id=id, n=1)).code == "invalid"
        await peer.send(wire.encode(wire.End(id, 0, 0, 0, EMPTY)))
        assert (await peer.result(id))["status"] == 0


async def test_a_stream_that_nobody_wants_does_not_stop_its_program(tmp_path: Path) -> None:
    async with undisturbed(tmp_path) as (_, peer):
        argv = {"shell": "head -c 30000000 /dev/zero; echo done >&2"}
        id = await peer.call("exec.run", argv, credit=1000)
        await peer.expect(wire.Data, id=id, n=1)
        await peer.send(wire.Reset(id, 1, "cancelled", "enough"))
        assert (await peer.expect(wire.Data, id=id, n=2)).data == b"done\n"
        assert (await peer.result(id))["status"] == 0


# Scope and rights ------------------------------------------------------------------------


async def test_who_may_only_watch_cannot_act_nor_stop_nor_take_over(tmp_path: Path) -> None:
    async with undisturbed(tmp_path) as (stack, peer):
        running = await peer.call("exec.run", {"shell": "echo hi; exec cat", "stdin": "stream"})
        await peer.expect(wire.Accepted, id=running)
        async with raw_peer(stack.hub, "eve", scope=Scope.WATCH) as eve:
            await eve.attach(after=0)
            await eve.result(await eve.call("sidecar.ping"))
            id = await eve.call("exec.run", {"argv": ["touch", "ran"]})
            assert_error(await eve.error(id), Code.FORBIDDEN)
            await eve.send(wire.Cancel(running))
            assert_error(await eve.error(running), Code.FORBIDDEN, Started.UNKNOWN)
            await eve.send(wire.Ask(running))
            assert_error(await eve.error(running), Code.FORBIDDEN, Started.UNKNOWN)
            await eve.publish(b"\xff", group=f"in.{RUN}")
            assert await eve.refusal() == "Forbidden"
            eve.group = f"see.{RUN}"
            nonce = eve.new_id()
            durable = wire.Attach("eve", nonce, [1], [1 << 20, 8], after=0, reader="platform")
            await eve.publish(wire.encode(durable))
            refused = await eve.expect(wire.Refused, nonce=nonce)
            assert_error(wire.error_from(refused.error), Code.FORBIDDEN)
        assert not (stack.workspace / "ran").exists()
        await peer.send(wire.encode(wire.End(running, 0, 0, 0, EMPTY)))
        assert (await peer.result(running))["status"] == 0


async def test_an_attachment_is_bound_to_the_group_it_came_through(tmp_path: Path) -> None:
    async with undisturbed(tmp_path) as (stack, peer):
        async with raw_peer(stack.hub, "eve", scope=Scope.WATCH) as eve:
            await eve.publish(peer.head() + call_of(peer))
            await until(lambda: stack.sidecar.exchange.dropped["attachment"] == 1)


async def test_a_token_of_another_run_reaches_nobody_here(tmp_path: Path) -> None:
    async with undisturbed(tmp_path) as (stack, _):
        async with raw_peer(stack.hub, "eve", run="other") as eve:
            await eve.publish(b"\xff", group=f"in.{RUN}")
            assert await eve.refusal() == "Forbidden"
        assert stack.sidecar.exchange.dropped == {}


async def test_a_client_with_the_token_of_another_run_is_told_why_nobody_answers(
    tmp_path: Path,
) -> None:
    async with undisturbed(tmp_path) as (stack, _):
        url = stack.url("me", run="other")
        async with Controller.connect(url, controller="me") as controller:
            with pytest.raises(CallError, match="no right to send to `in.demo`") as caught:
                await controller.attach(RUN, timeout=2)
        assert_error(caught.value, Code.FORBIDDEN)


async def test_a_client_whose_token_is_refused_is_told_why_nobody_answers(tmp_path: Path) -> None:
    async with undisturbed(tmp_path) as (stack, _):
        url = f"{stack.hub.address.client_url}?access_token=eyJhbGciOiJIUzI1NiJ9.e30.bad"
        async with Controller.connect(url, controller="me") as controller:
            with pytest.raises(CallError, match="refused|401") as caught:
                await controller.attach(RUN, timeout=0.5)
        assert caught.value.code is Code.TIMEOUT


NOT_IDS = ["a.b", "*", "a*", "", "A", "-a", "a-", "a" * 64, "a\n", "ä", "a/b", "a b"]


@pytest.mark.parametrize("name", NOT_IDS)
def test_a_name_that_would_widen_a_role_is_refused_wherever_it_comes_in(name: str) -> None:
    for build in (
        lambda: sidecar_grant(name),
        lambda: controller_grant(name, ["demo"]),
        lambda: controller_grant("me", [name]),
    ):
        with pytest.raises(CallError) as caught:
            build()
        assert_error(caught.value, Code.INVALID)
    with pytest.raises(SettingsError, match="SIDECAR_RUN"):
        load({"SIDECAR_RUN": name, "SIDECAR_TOKEN": "ws://127.0.0.1/client/hubs/h?access_token=x"})


@pytest.mark.parametrize("name", ["a.b", "*", ""])
async def test_a_client_refuses_such_names_before_it_sends_anything(
    name: str, tmp_path: Path
) -> None:
    async with open_stack(tmp_path, sidecars=0) as stack:
        url = stack.url("me")
        with pytest.raises(CallError, match="not an id"):
            async with Controller.connect(url, controller=name):
                pass
        async with Controller.connect(url, controller="me") as controller:
            with pytest.raises(CallError, match="not an id"):
                await controller.attach(name)


# Sizes -----------------------------------------------------------------------------------


async def test_a_message_over_the_limit_costs_its_sender_the_connection_and_nobody_else(
    tmp_path: Path,
) -> None:
    async with undisturbed(tmp_path) as (_, peer):
        await peer.publish(bytes(2_000_000))
        assert await peer.close_code() == 1009


async def test_a_client_refuses_arguments_that_fit_in_no_message(tmp_path: Path) -> None:
    async with undisturbed(tmp_path) as (stack, _):
        run = await stack.attach("me")
        with pytest.raises(CallError) as caught:
            await run.exec(["true", "x" * 2_000_000])
        assert_error(caught.value, Code.LIMIT)
        assert await run.ping() < 2.0


# By REST ---------------------------------------------------------------------------------


async def test_what_a_platform_sends_wrong_by_rest_is_dropped_and_counted(tmp_path: Path) -> None:
    async with undisturbed(tmp_path) as (stack, peer):
        id = peer.new_id()
        elsewhere = wire.Call(id, "sidecar.ping", b"\xa0", reply="other.raw")
        await send_to_sidecar(stack.hub, elsewhere)
        await send_to_sidecar(stack.hub, wire.Call(id, "sidecar.ping", b"\xa0"))
        await send_to_sidecar(stack.hub, wire.Attach("raw", id, [1], [1 << 20, 8]))
        await send_to_sidecar(stack.hub, b"\xff")
        dropped = stack.sidecar.exchange.dropped
        await until(lambda: sum(dropped.values()) == 4)
        assert dropped == {"controller": 2, "stray": 1, "broken": 1}


def test_every_code_says_what_may_be_done_about_it() -> None:
    assert {default_retry(code) for code in Code} == set(Retry)
