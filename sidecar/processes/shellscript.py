r"""What a shell session and its shell say to each other. No I/O.

The shell (bash, or whatever `sh` is) runs interactively on a terminal, but the lines it reads
are ours: its standard input is the control socket. A command is one such line:

    announce "began"; eval the command with the terminal as its input; report "done"

and its parts are made so that nothing a command does can fake, eat or silence a report:

- During `eval` descriptor 0 is the terminal; the shell keeps the socket at a number of its own
  that is closed on exec. No program that a command starts can see it.
- Reports carry a random nonce that the command is never told: it is in no variable, and never the
  last word before the command, which would be in `$_`. Other reports are ignored.
- A command that is interrupted (Ctrl-C, SIGINT) takes the rest of its line with it, the report,
  too. Therefore the report may be asked for on a second line. It is sent only after "began":
  dash and ash forget what they have read ahead, but not what is still in the socket.
- `command eval` in place of `eval`: in dash an error in a special built-in ends the line.
- A line of its own comes first: after some syntax errors in an `eval` bash 5.2 takes no reserved
  word as the first one of the next line. It empties PS1 and PS2, so that no prompt mixes with
  output. They belong to the shell session and do not live on.
- `set -x`, and traps for DEBUG: what the shell says of our own words goes to /dev/null.

The output of a command is what the terminal carried between two marks, which the shell prints
before and after it, as in the semantic prompts of iTerm2 and other terminals (OSC 133;C and
133;D). Any other way to the end of the output would be a guess: the kernel moves what is written
to a terminal on to its reader behind the writer's back.

    shell -> session    "ready" SP ("bash" | "sh") SP terminal NUL
                        "began" SP nonce NUL
                        "done" SP nonce SP status SP working-directory LF NUL
"""

from __future__ import annotations

import re
from dataclasses import dataclass

PROGRAM = (
    "/bin/sh",
    "-c",
    # ENV and BASH_ENV name files that a shell reads when it starts.
    ": shell session; unset ENV BASH_ENV; export PS1= PS2=; command -v bash >/dev/null "
    "&& exec bash --noprofile --norc --noediting -i <&3 3<&-; exec /bin/sh -i <&3 3<&-",
)
# Its first lines: no history file, no sudden end of a shell that was idle, no news about mail.
OPENING = (
    b"unset PS1 PS2 PROMPT_COMMAND HISTFILE TMOUT MAILCHECK; PS1= PS2=\n"
    b"case ${BASH_VERSION-} in ?*) set +o history +o histexpand;; esac\n"
)
# Descriptor 2 may have been turned elsewhere meanwhile; then `tty` says that it is none.
INTRODUCE = (
    b"\n\\command printf 'ready %s %s\\000' "
    b'"${BASH_VERSION:+ba}sh" "$(tty <&2)" >&0 2>/dev/null\n'
)

_READY = re.compile(rb"ready (bash|sh) ([\w/ ]*)\Z")
_DEVICE = re.compile(r"/dev/[\w/]+")  # it becomes a word of the script
MAX_REPORT = 64 * 1024  # bytes; more without an end is no report of ours


class Messages:
    """Puts what comes from the shell together."""

    def __init__(self) -> None:
        self._held = b""

    def receive(self, data: bytes) -> list[bytes]:
        """The messages that are complete now."""
        *complete, held = (self._held + data).split(b"\0")
        self._held = held[-MAX_REPORT:]
        return complete


@dataclass(frozen=True, slots=True)
class Ready:
    """The shell is there: "bash" or "sh", and the path of its terminal."""

    shell: str
    terminal: str


def ready_of(message: bytes) -> Ready | None:
    """What the shell answers to `INTRODUCE`; None for any other message."""
    found = _READY.search(message)
    if found is None:
        return None
    shell, path = (part.decode() for part in found.groups())
    return Ready(shell, path if _DEVICE.fullmatch(path) else "/dev/tty")


@dataclass(frozen=True, slots=True)
class Done:
    """The command is over: its status as in `$?`, and where it left the shell."""

    status: int
    cwd: bytes


class CommandProtocol:
    """One command: what to tell the shell, and what comes back.

    `terminal` is the path of the shell's terminal, `status` what `$?` was after the command
    before, `offset` the place of the next byte of output.
    """

    def __init__(
        self, text: str, *, nonce: str, terminal: str, status: int = 0, offset: int = 0
    ) -> None:
        self.has_begun = False
        self.done: Done | None = None
        self.output = Marked(nonce, offset)
        self._text = text
        self.nonce = nonce
        self._terminal = terminal
        self._status = status

    def order(self) -> bytes:
        """The lines that make the shell run it."""
        announce = (
            f"{{ {_print_mark('C', self.nonce, self._terminal)}; "
            f"\\command printf 'began %s\\000%s' {self.nonce} '' >&0; }} 2>/dev/null; "
        )
        # A false list that ends in `&&` counts as checked: neither `set -e` nor ERR minds.
        restore = f"(exit {self._status}) && :; " if self._status else ""
        command = f"\\command eval {_quoted(self._text)} <>{self._terminal}; "
        return f"PS1= PS2=\n{announce}{restore}{command}{self._report()}".encode()

    def question(self) -> bytes:
        """Lines that make the shell report, for when the command took its own with it."""
        return f"\n{self._report()}".encode()

    def _report(self) -> str:
        return (
            f"{{ \\command printf 'done %s %s %s' {self.nonce} \"$?\" '' >&0; \\command pwd >&0; "
            f"\\command printf '\\000' >&0; {_print_mark('D', self.nonce, self._terminal)}; "
            "} 2>/dev/null\n"
        )

    def receive(self, message: bytes) -> None:
        """What the shell said. What stands before a report is passed over: a trap of the shell's
        own may have printed that."""
        began, done = (f"{word} {self.nonce}".encode() for word in ("began", "done"))
        if message.endswith(began):
            self.has_begun = True
        elif self.done is None and done in message:
            self.done = _done_of(message.partition(done)[2])


def _done_of(text: bytes) -> Done | None:
    status, _, cwd = text.removeprefix(b" ").partition(b" ")
    if not (status.isdigit() and len(status) <= 3 and cwd.endswith(b"\n")):
        return None
    return Done(int(status), cwd[:-1])


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _print_mark(letter: str, nonce: str, terminal: str) -> str:
    escaped = _mark(letter, "%s").decode().replace("\x1b", "\\033").replace("\x07", "\\007")
    return f"\\command printf '{escaped}%s' {nonce} '' 1<>{terminal}"


def _mark(letter: str, nonce: str) -> bytes:
    options = {"C": "", "D": ";"}[letter]  # a D has a status first, here none
    return f"\x1b]133;{letter};{options}aid={nonce}\x07".encode()


class Marked:
    """Finds one command's part of what a terminal printed. Offsets count from its first byte.

    It begins at `start` or later; `begin` and `end` are None until they are known. What lies
    between `begin` and `limit` is certainly output: what may be the beginning of the closing mark
    is held back.
    """

    def __init__(self, nonce: str, offset: int = 0) -> None:
        self.begin: int | None = None
        self.end: int | None = None
        self.limit = offset
        self.start = self._offset = offset  # the latter of the next byte
        self._held = b""  # the bytes before it that may begin a mark
        self._opening = _mark("C", nonce)
        self._closing = _mark("D", nonce)

    def receive(self, data: bytes) -> None:
        """The next bytes of output."""
        text = self._held + data
        place = self._offset - len(self._held)
        self._offset += len(data)
        if self.end is not None:
            return
        if self.begin is None:
            found = text.find(self._opening)
            if found < 0:
                self._held = _beginning(text, self._opening)
                return
            self.begin = self.limit = place + found + len(self._opening)
            text, place = text[self.begin - place :], self.begin
        found = text.find(self._closing)
        if found >= 0:
            self.end = self.limit = place + found
            self._held = b""
            return
        self._held = _beginning(text, self._closing)
        self.limit = self._offset - len(self._held)

    def give_up(self) -> None:
        """There will be no closing mark: all that came is the command's."""
        if self.end is None:
            self.begin = self.start if self.begin is None else self.begin
            self.end = self.limit = self._offset


def _beginning(text: bytes, mark: bytes) -> bytes:
    """The end of `text`, as far as `mark` may begin there. A mark has one ESC, its first byte."""
    place = text.rfind(b"\x1b", -len(mark) + 1)
    return text[place:] if place >= 0 and mark.startswith(text[place:]) else b""
