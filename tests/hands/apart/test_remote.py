"""Core's side of a hands in another process: lost connections, restarts, and bad company."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from servedhands import FakeHands, reach, serve

from sidecar.errors import CallError, Code, Started
from sidecar.hands.apart import connection, dialer, remote, remotefiles, wire
from sidecar.hands.apart.connection import Peer
from sidecar.hands.apart.remote import SocketHands
from sidecar.hands.interface import Program, Terminal
from sidecar.hands.local.hands import LocalHands
from sidecar.hands.local.proc import read_process

KEY = b"call"
UNKNOWN = (Code.OUTCOME_UNKNOWN, Started.YES)
CAT = Program(argv=["cat"], stdin=True)


def close(*descriptors: int | None) -> None:
    for descriptor in descriptors:
        if descriptor is not None:
            os.close(descriptor)


async def until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(5):
        while not condition():  # noqa: ASYNC110 - nobody announces it
            await anyio.sleep(0.002)


async def refusal(call: Any) -> tuple[Code, Started, str]:
    with pytest.raises(CallError) as caught:
        await call
    return caught.value.code, caught.value.started, caught.value.message


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long for a hands that is away."""
    monkeypatch.setattr(remote, "AWAY_TIME", 0.05)
    monkeypatch.setattr(dialer, "PATIENCE", 0.05)


# With a real one ----------------------------------------------------------------------------


async def test_it_says_who_is_at_the_other_end(local: LocalHands, socket_path: Path) -> None:
    met: list[Peer] = []

    async def note(peer: Peer) -> None:
        met.append(peer)

    async with (
        serve(local, socket_path),
        SocketHands.open_socket(str(socket_path), on_connected=note) as hands,
    ):
        assert (hands.form, hands.trust) == ("socket", "unknown")
        assert hands.status()["state"] == "away"
        await hands.stat(".")
        assert hands.trust == "shared", "it is our own user"
        assert hands.status()["state"] == "connected"
        assert (await hands.capabilities())["form"] == "socket"
    [peer] = met
    assert (peer.uid, peer.pid, len(peer.incarnation)) == (os.getuid(), os.getpid(), 16)


def test_another_user_is_far_enough_and_root_never() -> None:
    assert [Peer(uid, 1, b"", {}).trust for uid in (os.geteuid(), 0, 65_533)] == [
        "shared",
        "shared",
        "isolated",
    ]


async def test_it_waits_for_a_hands_that_comes(local: LocalHands, socket_path: Path) -> None:
    away: list[str] = []
    async with SocketHands.open_socket(str(socket_path), on_away=away.append) as hands:
        await until(lambda: away)
        async with anyio.create_task_group() as group:
            group.start_soon(hands.stat, ".")
            await anyio.lowlevel.checkpoint()
            async with serve(local, socket_path):
                await until(lambda: hands.status()["state"] == "connected")
                assert (await hands.stat(".")).size >= 0
    assert away[0] == "No such file or directory"


async def test_without_one_nothing_was_started(socket_path: Path, impatient: None) -> None:
    async with SocketHands.open_socket(str(socket_path)) as hands:
        for call in (hands.stat("."), hands.spawn(CAT, key=KEY), hands.mkdir("a")):
            code, started, message = await refusal(call)
            assert (code, started) == (Code.HANDS_AWAY, Started.NO)
            assert message == "hands is away: No such file or directory"
        assert (await refusal(hands.capabilities()))[0] == Code.HANDS_AWAY
        assert (await refusal(hands.wait(KEY)))[:2] == (Code.HANDS_AWAY, Started.UNKNOWN)
        await hands.forget(KEY)
        await hands.end_input(KEY)


async def test_a_program_outlives_a_lost_connection(local: LocalHands, socket_path: Path) -> None:
    async with reach(local, socket_path) as hands:
        running = await hands.spawn(CAT, key=KEY)
        assert running.stdin is not None
        async with anyio.create_task_group() as group:
            exits = []

            async def wait() -> None:
                exits.append(await hands.wait(KEY))

            group.start_soon(wait)
            for _ in range(3):
                await anyio.lowlevel.checkpoint()
                (await hands._dialer.connection()).end("a test cut it")
                await hands.stat(".")
            os.write(running.stdin, b"still there")
            await anyio.wait_readable(running.stdout)
            assert os.read(running.stdout, 100) == b"still there"
            close(running.stdin)
            await hands.end_input(KEY)
        assert exits[0].status == 0
        close(running.stdout, running.stderr)


async def test_the_next_core_reads_on_where_the_last_one_stopped(
    local: LocalHands, socket_path: Path
) -> None:
    async with serve(local, socket_path):
        async with SocketHands.open_socket(str(socket_path)) as first:
            before = await first.spawn(CAT, key=KEY)
            assert before.stdin is not None
            os.write(before.stdin, b"one two")
            await anyio.wait_readable(before.stdout)
            assert os.read(before.stdout, 4) == b"one "
            close(before.stdin, before.stdout, before.stderr)
        async with SocketHands.open_socket(str(socket_path)) as second:
            [known] = await second.known()
            assert (known.key, known.pid, known.has_ended) == (KEY, before.pid, False)
            after = await second.take(KEY)
            assert (after.pid, after.start_time) == (before.pid, before.start_time)
            assert after.stdin is not None
            os.write(after.stdin, b" three")
            close(after.stdin)
            await second.end_input(KEY)
            assert (await second.wait(KEY)).status == 0
            assert os.read(after.stdout, 100) == b"two three"
            once_more = await second.take(KEY)
            assert once_more.stdin is None, "it was ended"
            await second.forget(KEY)
            assert (await refusal(second.take(KEY)))[0] == Code.NOT_FOUND
            close(after.stdout, after.stderr, once_more.stdout, once_more.stderr)


async def test_a_terminal_can_be_taken_by_the_next_core(
    local: LocalHands, socket_path: Path
) -> None:
    program = Program(argv=["sh", "-c", "read a; echo got $a"], terminal=Terminal(plain=True))
    async with serve(local, socket_path):
        async with SocketHands.open_socket(str(socket_path)) as first:
            before = await first.spawn(program, key=KEY)
            close(before.stdin, before.stdout)
        async with SocketHands.open_socket(str(socket_path)) as second:
            after = await second.take(KEY)
            assert after.stdin is not None
            await second.resize(KEY, rows=30, cols=100)
            os.write(after.stdin, b"this\n")
            assert (await second.wait(KEY)).status == 0
            assert os.read(after.stdout, 100) == b"got this\n", "it is there when the end is told"
            close(after.stdin, after.stdout)


async def test_uploads_end_with_the_connection(
    local: LocalHands, socket_path: Path, root: Path
) -> None:
    async with reach(local, socket_path) as hands:
        upload = await hands.replace("file")
        os.write(upload.fd, b"half")
        (await hands._dialer.connection()).end("a test cut it")
        await hands.stat(".")
        await until(lambda: os.listdir(root) == [])
        assert (await refusal(upload.commit()))[:2] == (Code.HANDS_AWAY, Started.NO)
        assert upload.fd == -1


async def test_an_upload_with_an_id_outlives_the_connection(
    local: LocalHands, socket_path: Path, root: Path
) -> None:
    async with reach(local, socket_path) as hands:
        upload = await hands.replace("file", upload=b"u" * 16)
        os.write(upload.fd, b"half")
        (await hands._dialer.connection()).end("a test cut it")
        os.write(upload.fd, b" and half")  # core has the descriptor all the same
        assert (await refusal(upload.commit()))[:2] == (Code.HANDS_AWAY, Started.NO)
        again = await hands.replace("file", upload=b"u" * 16)
        assert again.size == 13
        await again.commit()
        assert (root / "file").read_bytes() == b"half and half"
        assert os.listdir(root) == ["file"]


async def test_what_could_not_be_said_is_said_later(local: LocalHands, socket_path: Path) -> None:
    async with SocketHands.open_socket(str(socket_path)) as hands:
        async with serve(local, socket_path):
            running = await hands.spawn(CAT, key=KEY)
            close(running.stdin, running.stdout, running.stderr)
            connected = await hands._dialer.connection()
            connected.end("a test cut it")
            await hands.end_input(KEY)  # not connected now
            await until(lambda: hands.status()["state"] == "connected")
            assert (await hands.wait(KEY)).status == 0


async def test_a_restarted_hands_is_told_of_programs_that_went_on(
    root: Path, socket_path: Path
) -> None:
    async with (
        LocalHands.open_root(str(root)) as old,
        LocalHands.open_root(str(root)) as new,
        SocketHands.open_socket(str(socket_path)) as hands,
    ):
        async with serve(old, socket_path):
            heard = await hands.spawn(Program(argv=["true"]), key=b"heard")
            missed = await hands.spawn(CAT, key=b"missed")
            lasting = await hands.spawn(CAT, key=KEY)
            await hands.wait(b"heard")
        os.kill(missed.pid, signal.SIGKILL)
        await old.wait(b"missed")
        async with serve(new, socket_path):
            assert [known.key for known in await hands.known()] == [KEY]
            assert (await refusal(hands.take(KEY)))[0] == Code.UNSUPPORTED
            assert (await hands.wait(b"heard")).status == 0
            assert (await refusal(hands.wait(b"missed")))[:2] == UNKNOWN
            await hands.signal(KEY, signal.SIGTERM)
            await until(lambda: read_process(lasting.pid) is None)
        for running in (heard, missed, lasting):
            close(running.stdin, running.stdout, running.stderr)


async def test_a_hands_that_does_not_come_back_is_given_up(
    local: LocalHands, socket_path: Path, impatient: None
) -> None:
    async with SocketHands.open_socket(str(socket_path)) as hands:
        async with serve(local, socket_path):
            await hands.stat(".")
            running = await hands.spawn(CAT, key=KEY)
        assert (await refusal(hands.wait(KEY)))[:2] == (Code.HANDS_AWAY, Started.YES)
        close(running.stdin, running.stdout, running.stderr)


async def test_arguments_beyond_a_frame_are_a_limit(local: LocalHands, socket_path: Path) -> None:
    async with reach(local, socket_path) as hands:
        program = Program(argv=["true", "x" * wire.MAX_REQUEST])
        assert (await refusal(hands.spawn(program, key=KEY)))[0] == Code.LIMIT
        assert (await refusal(hands.utimes("x", atime_ns=2**70, mtime_ns=0)))[0] == Code.INVALID
        await hands.stat(".")


async def test_a_page_of_the_longest_names_is_cut_and_goes_on(
    local: LocalHands, socket_path: Path, root: Path
) -> None:
    names = [f"{number:05}" + "n" * 250 for number in range(2000)]
    for name in names:
        (root / name).touch()
    async with reach(local, socket_path) as hands:
        found: list[bytes] = []
        pages, after = 0, None
        while pages == 0 or after is not None:
            page = await hands.walk(".", after=after, limit=10_000)
            found += [entry.path for entry in page.entries]
            pages, after = pages + 1, page.next
    assert pages > 1
    assert found == [os.fsencode(name) for name in names]


# With one that means ill --------------------------------------------------------------------


def with_fd(make: Callable[[], int], value: Any = None) -> Callable[[FakeHands, Any], None]:
    """Answer with a descriptor that `make` makes."""

    def answer(fake: FakeHands, request: wire.Request) -> None:
        fd = make()
        fake.reply(request, value, [fd])
        os.close(fd)

    return answer


def reading_end() -> int:
    ends = os.pipe()
    os.close(ends[1])
    return ends[0]


def a_socket() -> int:
    with socket.socket(socket.AF_INET) as made:
        return made.detach()


ILL = [
    pytest.param("open", with_fd(reading_end), id="a pipe for a file"),
    pytest.param("open", with_fd(lambda: os.open("/", os.O_RDONLY)), id="a folder for a file"),
    pytest.param("open", with_fd(lambda: os.open("/dev/zero", os.O_RDONLY)), id="a device"),
    pytest.param("open", lambda fake, request: fake.reply(request, None), id="no descriptor"),
    pytest.param("open", lambda fake, request: fake.reply(request, None, [0, 0]), id="two"),
    pytest.param("stat", with_fd(reading_end), id="a descriptor with a stat"),
    pytest.param("walk", with_fd(reading_end, [None, []]), id="a descriptor with a page"),
    pytest.param("known", with_fd(reading_end, []), id="a descriptor with programs"),
    pytest.param("survivors", with_fd(reading_end, []), id="a descriptor with survivors"),
    pytest.param("stat", lambda fake, request: fake.reply(request, "x"), id="no stat"),
    pytest.param("stat", lambda fake, request: fake.reply(request, [1] * 10), id="a bad stat"),
    pytest.param("walk", lambda fake, request: fake.reply(request, [None, 5]), id="no entries"),
    pytest.param(
        "walk",
        lambda fake, request: fake.reply(request, [None, [[b"../x", [], None]]]),
        id="a bad name",
    ),
    pytest.param("remove", lambda fake, request: fake.reply(request, -1), id="a bad number"),
    pytest.param("known", lambda fake, request: fake.reply(request, [[1]]), id="bad programs"),
    pytest.param("survivors", lambda fake, request: fake.reply(request, {}), id="bad survivors"),
    pytest.param("replace", with_fd(reading_end, 1), id="a pipe for an upload"),
    pytest.param("append", with_fd(lambda: os.memfd_create("x")), id="no end of a file"),
    pytest.param("part", lambda fake, request: fake.reply(request, 4), id="no stat of a part"),
    pytest.param("discard", lambda fake, request: fake.reply(request, 1), id="neither yes nor no"),
    pytest.param("discard", with_fd(reading_end, True), id="a descriptor with a yes"),
    pytest.param("spawn", lambda fake, request: fake.reply(request, None), id="no program"),
    pytest.param("spawn", with_fd(reading_end, [1, 2, ["stdout"]]), id="too few streams"),
    pytest.param("take", with_fd(reading_end, [1 << 31, 2, ["stdout"]]), id="no pid"),
    pytest.param("take", with_fd(reading_end, [1, 1 << 63, ["stdout"]]), id="no start time"),
    pytest.param(
        "known",
        lambda fake, request: fake.reply(request, [[KEY, 1 << 31, 2, False, False, b"x"]]),
        id="no pid of a known program",
    ),
    pytest.param("spawn", with_fd(a_socket, [1, 2, ["stdout"]]), id="a socket for a pipe"),
    pytest.param(
        "stat",
        lambda fake, request: fake.link.send(wire.Reply(request.id + 99, None)),
        id="an answer to nothing",
    ),
    pytest.param(
        "stat", lambda fake, request: fake.link.send_frame(b"\xff" * 100), id="a frame too long"
    ),
    pytest.param(
        "stat", lambda fake, request: fake.link.send_frame(b"\0\0\0\x02\xff\xff"), id="garbage"
    ),
    pytest.param("stat", lambda fake, request: fake.link.send(wire.Cancel(1)), id="what core says"),
    pytest.param(
        "stat", lambda fake, request: fake.link.send(wire.Hello(1, {})), id="a second hello"
    ),
]


async def call(hands: SocketHands, method: str) -> None:
    calls: dict[str, Callable[[], Any]] = {
        "open": lambda: hands.open("x"),
        "stat": lambda: hands.stat("x"),
        "walk": lambda: hands.walk("x"),
        "remove": lambda: hands.remove("x"),
        "known": lambda: hands.known(),
        "survivors": lambda: hands.survivors(),
        "replace": lambda: hands.replace("x"),
        "append": lambda: hands.append("x"),
        "part": lambda: hands.part("x", b"u" * 16),
        "discard": lambda: hands.discard("x", b"u" * 16),
        "spawn": lambda: hands.spawn(Program(argv=["x"]), key=KEY),
        "take": lambda: hands.take(KEY),
    }
    await calls[method]()


@pytest.mark.parametrize("method, answer", ILL)
async def test_an_answer_that_does_not_fit_ends_the_connection(
    method: str, answer: Callable[[FakeHands, Any], None], socket_path: Path
) -> None:
    async with (
        FakeHands(answer).at(socket_path) as fake,
        SocketHands.open_socket(str(socket_path)) as hands,
    ):
        with anyio.fail_after(5):
            code, started, _ = await refusal(call(hands, method))
        assert (code, started) == (Code.HANDS_AWAY, Started.UNKNOWN)
        first = fake.links[0]
        await until(lambda: first.is_over)


async def test_descriptors_with_an_end_that_nobody_asks_for_are_closed(socket_path: Path) -> None:
    def answer(fake: FakeHands, request: wire.Request) -> None:
        descriptors = [os.memfd_create("unasked") for _ in range(2)]
        fake.link.send(wire.Reply(request.arguments.get("wait", request.id), None), descriptors)
        close(*descriptors)

    async with (
        FakeHands(answer).at(socket_path),
        SocketHands.open_socket(str(socket_path)) as hands,
    ):
        with anyio.fail_after(5):
            code, started, _ = await refusal(hands.spawn(CAT, key=KEY))
        assert (code, started) == (Code.HANDS_AWAY, Started.UNKNOWN)


async def test_descriptors_with_the_answer_to_a_ping_are_closed(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialer, "PING_INTERVAL", 0.01)
    away: list[str] = []
    async with FakeHands(lambda fake, request: None).at(socket_path) as fake:
        reply = fake.reply
        monkeypatch.setattr(fake, "reply", lambda request, value: reply(request, value, [0]))
        async with SocketHands.open_socket(str(socket_path), on_away=away.append):
            await until(lambda: away)
    assert away[0] == "the other side broke the protocol: descriptors with an answer that has none"


async def test_a_late_answer_that_cannot_be_undone_ends_the_connection(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[wire.Request] = []
    away: list[str] = []
    async with (
        FakeHands(lambda fake, request: asked.append(request)).at(socket_path) as fake,
        SocketHands.open_socket(str(socket_path), on_away=away.append) as hands,
    ):
        with anyio.move_on_after(0.02):
            await hands.replace("x")
        fake.reply(asked[0], -(1 << 64))  # the number of an upload, and too large to be sent
        await until(lambda: "a number of more than 64 bits" in "".join(away))


async def test_an_error_is_cut_to_what_may_be_told(socket_path: Path) -> None:
    def answer(fake: FakeHands, request: wire.Request) -> None:
        error = {
            "code": "surprise",
            "message": "m" * 10_000,
            "started": 5,
            "details": {"path": "p" * 10_000, "nested": [[]], "errno": "ENOENT"},
        }
        fake.link.send(wire.Failure(request.id, error))

    async with (
        FakeHands(answer).at(socket_path),
        SocketHands.open_socket(str(socket_path)) as hands,
    ):
        with pytest.raises(CallError) as caught:
            await hands.stat("x")
    assert (caught.value.code, caught.value.started) == (Code.INTERNAL, Started.UNKNOWN)
    assert len(caught.value.message) == 2000
    assert caught.value.details == {"path": "p" * 4096, "errno": "ENOENT"}


async def test_a_blocking_pipe_does_not_stop_core(socket_path: Path) -> None:
    ends: list[int] = []

    def answer(fake: FakeHands, request: wire.Request) -> None:
        for _ in range(3):
            ends.extend(os.pipe())  # in blocking mode, and they stay ours too
        given = [ends[1], ends[2], ends[4]]
        fake.reply(request, [1, 2, ["stdin", "stdout", "stderr"]], given)

    async with (
        FakeHands(answer).at(socket_path),
        SocketHands.open_socket(str(socket_path)) as hands,
    ):
        running = await hands.spawn(CAT, key=KEY)
        assert running.stdin is not None
        os.set_blocking(running.stdout, True)
        with pytest.raises(BlockingIOError):
            hands.pipe_io.read(running.stdout, 100)
        assert hands.pipe_io.write(running.stdin, b"x" * 100_000) == 65_536
        with pytest.raises(BlockingIOError):
            hands.pipe_io.write(running.stdin, b"x")
        close(running.stdin, running.stdout, running.stderr, *ends)


async def test_an_answer_that_never_comes_is_not_waited_for(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remotefiles, "FILE_TIME", 0.02)
    late: list[wire.Request] = []
    async with (
        FakeHands(lambda fake, request: late.append(request)).at(socket_path) as fake,
        SocketHands.open_socket(str(socket_path)) as hands,
    ):
        code, started, message = await refusal(hands.replace("x"))
        assert (code, started) == (Code.HANDS_AWAY, Started.UNKNOWN)
        assert message == "hands did not answer `replace` within 0.02 s"
        with anyio.move_on_after(0.02) as cancelled:
            await hands.wait(KEY)
        assert cancelled.cancelled_caught
        for request in late:  # what comes yet is thrown away
            fd = os.memfd_create("late")
            fake.reply(request, None, [fd] if request.method == "replace" else [])
            os.close(fd)
        await anyio.sleep(0.01)
        assert hands.status()["state"] == "connected"


async def test_a_hands_that_hangs_is_left(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialer, "PING_INTERVAL", 0.01)
    monkeypatch.setattr(dialer, "PING_PATIENCE", 0.02)
    away: list[str] = []
    async with FakeHands(lambda fake, request: None).at(socket_path) as fake:
        monkeypatch.setattr(fake, "reply", lambda *arguments: None)
        async with SocketHands.open_socket(str(socket_path), on_away=away.append):
            await until(lambda: len(fake.links) > 1)
    assert away[0] == "hands did not answer `ping` within 0.02 s"


@pytest.mark.parametrize(
    "hello, why",
    [
        (wire.Hello(9, {}), "it speaks version 9, this sidecar 1: use the same release"),
        (wire.Hello(1, {}), "the other side broke the protocol: a hello without"),
        (wire.Cancel(1), "the other side broke the protocol: Cancel is for core"),
        (
            wire.Hello(1, {"incarnation": b"i" * 16, "pid": 1, "capabilities": {"a": [1]}}),
            "the other side broke the protocol: 'a' was expected",
        ),
        (wire.Failure(0, {"code": "hands_away", "message": "not you"}), "not you"),
    ],
)
async def test_a_bad_hello_is_no_connection(
    socket_path: Path, hello: wire.Message, why: str
) -> None:
    away: list[str] = []
    fake = FakeHands(lambda fake, request: None)
    fake.hello = hello
    async with (
        fake.at(socket_path),
        SocketHands.open_socket(str(socket_path), on_away=away.append) as hands,
    ):
        await until(lambda: away)
        assert hands.trust == "unknown"
    assert away[0].startswith(why)


async def test_silence_is_no_hello(socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HELLO_TIME", 0.02)
    away: list[str] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(socket_path))
        listener.listen()
        async with SocketHands.open_socket(str(socket_path), on_away=away.append):
            await until(lambda: away)
    assert away == ["hands did not say hello within 0 s"]


async def test_a_spawn_whose_answer_was_lost_is_looked_for(
    local: LocalHands, socket_path: Path
) -> None:
    """The connection is cut when hands has started the program and not said so yet."""
    async with reach(local, socket_path) as hands:
        cut = (await hands._dialer.connection()).end
        spawn = local.spawn

        async def spawn_and_cut(program: Program, *, key: bytes) -> Any:
            running = await spawn(program, key=key)
            cut("a test cut it")
            return running

        local.spawn = spawn_and_cut  # type: ignore[method-assign]
        running = await hands.spawn(CAT, key=KEY)
        assert [known.pid for known in await hands.known()] == [running.pid]
        close(running.stdin, running.stdout, running.stderr)
        await hands.end_input(KEY)
        assert (await hands.wait(KEY)).status == 0


async def test_a_spawn_that_did_not_begin_is_asked_for_again(socket_path: Path) -> None:
    ends: list[int] = []

    def answer(fake: FakeHands, request: wire.Request) -> None:
        if request.method == "take":
            error = {"code": "not_found", "message": "unknown", "started": "no"}
            fake.link.send(wire.Failure(request.id, error))
        elif len(fake.links) == 1:
            fake.link.end("cut")
        else:
            ends.extend([*os.pipe(), *os.pipe()])
            fake.reply(request, [1, 2, ["stdout", "stderr"]], [ends[0], ends[2]])

    async with (
        FakeHands(answer).at(socket_path) as fake,
        SocketHands.open_socket(str(socket_path)) as hands,
    ):
        running = await hands.spawn(Program(argv=["x"]), key=KEY)
        assert fake.requests == ["spawn", "take", "spawn"]
        close(running.stdout, running.stderr, *ends)


async def test_a_spawn_at_a_hands_that_was_restarted_meanwhile_is_unknown(
    socket_path: Path,
) -> None:
    def answer(fake: FakeHands, request: wire.Request) -> None:
        fake.incarnation = b"j" * 16
        fake.link.end("cut")

    async with (
        FakeHands(answer).at(socket_path),
        SocketHands.open_socket(str(socket_path)) as hands,
    ):
        code, started, _ = await refusal(hands.spawn(CAT, key=KEY))
    assert (code, started) == (Code.HANDS_AWAY, Started.UNKNOWN)


async def test_a_spawn_that_nobody_waits_for_any_more_is_undone(
    local: LocalHands, socket_path: Path
) -> None:
    async with reach(local, socket_path) as hands:
        spawn = local.spawn
        begun = anyio.Event()

        async def slowly(program: Program, *, key: bytes) -> Any:
            running = await spawn(program, key=key)
            begun.set()
            with anyio.CancelScope(shield=True):  # it is done, whatever core wants now
                await anyio.sleep(0.02)
            return running

        local.spawn = slowly  # type: ignore[method-assign]
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: hands.spawn(CAT, key=KEY))
            await begun.wait()
            group.cancel_scope.cancel()
        assert len(await hands.known()) == 1
        with anyio.fail_after(5):
            while await hands.known():  # noqa: ASYNC110
                await anyio.sleep(0.005)
