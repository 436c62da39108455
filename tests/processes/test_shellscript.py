"""What goes to a shell and what comes back. What shells make of it: test_shellsession.py."""

from __future__ import annotations

import pytest

from sidecar.processes.shellscript import (
    MAX_REPORT,
    CommandProtocol,
    Done,
    Marked,
    Messages,
    Ready,
    ready_of,
)

NONCE = "0123456789abcdef"
OPEN = b"\x1b]133;C;aid=0123456789abcdef\x07"
CLOSE = b"\x1b]133;D;;aid=0123456789abcdef\x07"


def command(text: str = "true", *, status: int = 0) -> CommandProtocol:
    return CommandProtocol(text, nonce=NONCE, terminal="/dev/pts/7", status=status)


# What the shell is told -----------------------------------------------------------------------


def test_the_words_of_a_command() -> None:
    assert command("echo 'a'\nb").order().decode() == (
        "PS1= PS2=\n"
        r"{ \command printf '\033]133;C;aid=%s\007%s' 0123456789abcdef '' 1<>/dev/pts/7; "
        r"\command printf 'began %s\000%s' 0123456789abcdef '' >&0; } 2>/dev/null; "
        "\\command eval 'echo '\\''a'\\''\nb' <>/dev/pts/7; "
        r"{ \command printf 'done %s %s %s' 0123456789abcdef "
        "\"$?\" '' >&0; \\command pwd >&0; "
        r"\command printf '\000' >&0; "
        r"\command printf '\033]133;D;;aid=%s\007%s' 0123456789abcdef '' 1<>/dev/pts/7; } "
        "2>/dev/null\n"
    )


def test_the_status_of_the_command_before_is_put_back() -> None:
    assert b"(exit 3) && :; \\command eval 'true'" in command(status=3).order()


# What the shell answers -----------------------------------------------------------------------


def test_a_command_begins_and_is_done() -> None:
    one = command()
    assert (one.has_begun, one.done) == (False, None)
    one.receive(b"began 0123456789abcdef")
    assert (one.has_begun, one.done) == (True, None)
    one.receive(b"done 0123456789abcdef 130 /a b\nc\n")
    assert one.done == Done(130, b"/a b\nc")


def test_the_first_report_counts() -> None:
    one = command()
    one.receive(b"done 0123456789abcdef 1 /a\n")
    one.receive(b"done 0123456789abcdef 0 /b\n")
    assert one.done == Done(1, b"/a")


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(b"done ffffffffffffffff 0 /\n", id="another-command"),
        pytest.param(b"done 0123456789abcdef 0 /", id="cut-off"),
        pytest.param(b"done 0123456789abcdef x /\n", id="no-status"),
        pytest.param(b"done 0123456789abcdef 1000 /\n", id="no-status-of-a-program"),
        pytest.param(b"done 0123456789abcdef", id="empty"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xff\xfe", id="noise"),
    ],
)
def test_what_is_no_report_is_ignored(message: bytes) -> None:
    one = command()
    one.receive(message)
    assert (one.has_begun, one.done) == (False, None)


def test_what_a_trap_printed_before_a_report_is_passed_over() -> None:
    one = command()
    one.receive(b"trapped\nbegan 0123456789abcdef")
    one.receive(b"trapped\ndone 0123456789abcdef 0 /\n")
    assert (one.has_begun, one.done) == (True, Done(0, b"/"))


def test_messages_are_put_together_from_any_pieces() -> None:
    messages = Messages()
    stream = b"began x\0done x 0 /tmp\n\0rest"
    assert [one for n in range(len(stream)) for one in messages.receive(stream[n : n + 1])] == [
        b"began x",
        b"done x 0 /tmp\n",
    ]
    assert messages.receive(b"\0") == [b"rest"]


def test_a_message_without_end_is_not_kept() -> None:
    messages = Messages()
    for _ in range(3):
        assert messages.receive(b"x" * MAX_REPORT) == []
    assert messages.receive(b"done\0") == [b"x" * MAX_REPORT + b"done"]


@pytest.mark.parametrize(
    "message, ready",
    [
        (b"ready bash /dev/pts/3", Ready("bash", "/dev/pts/3")),
        (b"noise\nready sh /dev/tty1", Ready("sh", "/dev/tty1")),
        (b"ready sh not a tty", Ready("sh", "/dev/tty")),
        (b"ready sh ", Ready("sh", "/dev/tty")),
        (b"ready sh /dev/pts/1;reboot", None),
        (b"ready zsh /dev/pts/1", None),
        (b"began 0123456789abcdef", None),
    ],
)
def test_the_shell_introduces_itself(message: bytes, ready: Ready | None) -> None:
    assert ready_of(message) == ready


# The output of a command ----------------------------------------------------------------------


def test_the_output_is_what_lies_between_the_marks() -> None:
    marked = Marked(NONCE, 100)
    marked.receive(b"(venv) " + OPEN + b"hello\n" + CLOSE + b"(venv) ")
    assert (marked.begin, marked.end, marked.limit) == (136, 142, 142)


def test_marks_are_found_however_they_are_cut() -> None:
    stream = b"junk" + OPEN + b"a\x1b]133b\x1b\x1b" + CLOSE + b"junk"
    for size in (1, 2, 3, 7, 29, 30, 31, 40):
        marked = Marked(NONCE)
        for place in range(0, len(stream), size):
            marked.receive(stream[place : place + size])
        assert (marked.begin, marked.end) == (33, 42), size


def test_only_what_may_begin_the_closing_mark_is_held_back() -> None:
    marked = Marked(NONCE)
    marked.receive(OPEN)
    assert marked.limit == 29
    marked.receive(b"ab")
    assert marked.limit == 31
    marked.receive(b"\x1b]133;")
    assert marked.limit == 31
    marked.receive(b"A\x07")  # another mark of a prompt, none of ours
    assert marked.limit == 39
    marked.receive(b"\x1b[31m")
    assert (marked.limit, marked.end) == (44, None)


def test_marks_of_other_commands_are_output() -> None:
    marked = Marked(NONCE)
    marked.receive(OPEN + b"\x1b]133;D;;aid=ffffffffffffffff\x07\x1b]133;D;0\x07")
    assert (marked.end, marked.limit) == (None, 29 + 30 + 10)


def test_without_marks_all_that_came_is_output() -> None:
    marked = Marked(NONCE, 100)
    marked.receive(b"abc\x1b]133")
    marked.give_up()
    assert (marked.begin, marked.end, marked.limit) == (100, 108, 108)
    marked = Marked(NONCE, 100)
    marked.receive(OPEN + b"abc\x1b]133")
    marked.give_up()
    assert (marked.begin, marked.end) == (129, 137)
