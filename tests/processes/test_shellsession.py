"""Commands in real shells: what lives on, what is told, what cannot be faked, what comes back."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from servedhands import reach, serve
from stack import until

from sidecar.clock import SystemClock
from sidecar.errors import CallError, Code
from sidecar.hands.apart.remote import SocketHands
from sidecar.hands.interface import Hands, Program, Target, Terminal
from sidecar.hands.local.hands import LocalHands
from sidecar.processes import shellsession
from sidecar.processes.commandoutput import CommandOutput
from sidecar.processes.process import Process
from sidecar.processes.record import Spec
from sidecar.processes.shellscript import OPENING, PROGRAM, Ready
from sidecar.processes.shellsession import Outcome, ShellSession
from sidecar.processes.store import ProgramStore
from sidecar.processes.table import Processes

KEY = b"0123456789abcdef"
SHELLS = {
    "bash": PROGRAM,
    "served": PROGRAM,  # by a hands behind a socket
    "sh": ("/bin/sh", "-c", "exec /bin/sh -i <&3 3<&-"),  # dash where this is developed
    "ash": ("/bin/sh", "-c", "exec busybox ash -i <&3 3<&-"),
}
WITHOUT_BUSYBOX = pytest.mark.skipif(shutil.which("busybox") is None, reason="no busybox here")
ASH = pytest.param("ash", marks=[pytest.mark.slow, pytest.mark.optional, WITHOUT_BUSYBOX])
SLOW_SH = pytest.param("sh", marks=pytest.mark.slow)
all_shells = pytest.mark.parametrize("shell", ["bash", SLOW_SH, ASH], indirect=True)
also_served = pytest.mark.parametrize("shell", ["bash", "sh", ASH, "served"], indirect=True)
PATIENCE = 10.0


@dataclass(frozen=True)
class Ran:
    status: int | None
    cwd: str | None
    output: bytes
    outcome: Outcome


class Shell:
    """A shell session, with each command's output gathered."""

    def __init__(self, session: ShellSession, ready: Ready) -> None:
        self.session = session
        self.ready = ready
        self.process = session.process
        self.nonces: list[str] = []

    async def run(
        self,
        command: str,
        *,
        timeout: float | None = None,
        grace: float = 5.0,
        when: Callable[[bytes], Any] | None = None,
    ) -> Ran:
        """`when` sees what the command has printed, whenever there is more."""
        with anyio.fail_after(PATIENCE), self.session.turn():
            protocol = self.session.command(command)
            self.nonces.append(protocol.nonce)
            marked = protocol.output
            printed = bytearray()

            def grown() -> None:
                if when is not None:
                    when(bytes(printed))

            output = CommandOutput(self.process.outputs[1], marked, on_grown=grown)
            spool = self.process.outputs[1].spool
            note = spool.on_write
            assert note is not None

            def see(data: bytes) -> None:
                printed.extend(data)
                note(data)

            spool.on_write = see
            try:
                outcome = await self.session.run(protocol, timeout=timeout, grace=grace)
            finally:
                output.close()
            answer = await output.answer(1 << 30)
        cwd = None if outcome.cwd is None else outcome.cwd.decode()
        return Ran(outcome.status, cwd, answer["data"], outcome)

    async def output(self, command: str) -> bytes:
        ran = await self.run(command)
        assert ran.outcome.exit is None, ran
        return ran.output

    def type(self, data: bytes) -> None:
        assert self.process.input is not None
        assert not self.process.input.write_at_once(data)


@pytest.fixture
async def shell(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Shell]:
    name = getattr(request, "param", "bash")
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    state = tmp_path / "state"
    state.mkdir()
    async with LocalHands.open_root(str(workspace)) as local, AsyncExitStack() as stack:
        hands: Hands = local
        if name == "served":
            hands = await stack.enter_async_context(reach(local, tmp_path / "hands.sock"))
        store = await anyio.to_thread.run_sync(ProgramStore.open, state)
        processes = Processes(hands, SystemClock(), store=store, emit=_emit)
        await stack.enter_async_context(processes.running())
        process = await processes.start(Spec(shell_program(name)), id=KEY, owner=None)
        processes.adopt_supervision(process)
        shell = await session_in(process, OPENING)
        assert shell.ready.shell == ("sh" if name in ("sh", "ash") else "bash")
        yield shell
        await process.kill(grace=0)
        await process.settled()


def shell_program(name: str) -> Program:
    return Program(argv=SHELLS[name], terminal=Terminal(plain=True), control=True)


async def session_in(process: Process, opening: bytes = b"") -> Shell:
    assert process.control is not None
    session = ShellSession(process, process.control, SystemClock())
    return Shell(session, await session.greet(opening))


@asynccontextmanager
async def core(path: Path, folder: Path) -> AsyncIterator[Processes]:
    """A core whose hands is at `path`."""
    async with SocketHands.open_socket(str(path)) as hands:
        await hands.stat(".")  # connected
        store = await anyio.to_thread.run_sync(ProgramStore.open, folder)
        processes = Processes(hands, SystemClock(), store=store, emit=_emit)
        async with processes.running():
            yield processes


def _emit(name: str, data: Any, *, call: bytes | None = None) -> int:
    return 0


# What lives on --------------------------------------------------------------------------------


@also_served
async def test_what_a_command_changes_lives_on(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "workspace" / "src").mkdir()
    await shell.run(
        "cd src; export EXPORTED='a \"b'; plain=1; f() { echo \"f $1\"; }; alias g='f 2'"
    )
    assert await shell.output('echo "$EXPORTED$plain"; sh -c \'echo "$EXPORTED"\'; f 1') == (
        b'a "b1\na "b\nf 1\n'
    )
    assert await shell.output("g") == b"f 2\n"
    assert (await shell.run("cd ..")).cwd == str(tmp_path / "workspace")
    await shell.run("set -- x y; umask 077; exec 5>file; exec 9>lock")
    assert await shell.output("echo $*; umask; echo kept >&5; cat file") == b"x y\n0077\nkept\n"
    assert b"lock" in await shell.output("readlink /proc/$$/fd/9")


@all_shells
async def test_the_status_lives_on(shell: Shell) -> None:
    assert (await shell.run("(exit 7)")).status == 7
    assert await shell.output("echo $?") == b"7\n"
    assert await shell.output("echo $?") == b"0\n"
    printed = await shell.output("sh -c 'kill -TERM $$'; echo $?")
    assert printed.splitlines() == [b"Terminated", b"143"]  # as a shell says it


async def test_a_virtual_environment_can_be_activated(shell: Shell, tmp_path: Path) -> None:
    script = (
        '_OLD="$PS1"; PS1="(venv) ${PS1:-}"; export PS1; PATH=/venv/bin:$PATH; hash -r\n'
        "deactivate() { PS1=$_OLD; }\n"
    )
    (tmp_path / "workspace" / "activate").write_text(script)
    assert (await shell.run("source ./activate")).output == b""
    assert await shell.output("echo ${PATH%%:*}") == b"/venv/bin\n"
    assert await shell.output("deactivate; echo out") == b"out\n"


@all_shells
async def test_the_variables_are_the_users_own(shell: Shell) -> None:
    names = {line.partition(b"=")[0] for line in (await shell.output("set")).splitlines()}
    words = rb"(?i)nonce|began|__|marker"
    assert [name for name in names if re.search(words, name)] == []
    exported = await shell.output("env | cut -d= -f1")
    assert not {b"PS1", b"PS2"} & set(exported.split())
    assert await shell.output("set -a; (exit 3)") == b""
    assert b"began" not in await shell.output("env")


@all_shells
async def test_the_nonce_is_in_no_variable(shell: Shell) -> None:
    seen = await shell.output('set -a; set; env; echo "$_"') + await shell.output('echo "$_"; env')
    nonce = shell.nonces[-1].encode()
    assert nonce not in seen and shell.nonces[-2].encode() not in seen


# What is told ---------------------------------------------------------------------------------


@all_shells
@pytest.mark.parametrize(
    "command, status, output",
    [
        pytest.param("true", 0, b"", id="nothing"),
        pytest.param("", 0, b"", id="empty"),
        pytest.param("# a comment", 0, b"", id="comment"),
        pytest.param("echo a; echo b >&2", 0, b"a\nb\n", id="both-outputs"),
        pytest.param("printf 'no newline'", 0, b"no newline", id="no-newline"),
        pytest.param("cat <<E\nhere\n$((1 + 1))\nE", 0, b"here\n2\n", id="here-document"),
        pytest.param("for i in 1 2\ndo\n  echo $i\ndone", 0, b"1\n2\n", id="lines"),
        pytest.param("echo 'a\nb' \\\n c", 0, b"a\nb c\n", id="quotes-and-continuation"),
        pytest.param("printf '\\001\\177\\377\\r\\n\\t'", 0, b"\x01\x7f\xff\r\n\t", id="binary"),
        pytest.param("printf %s '\x01\x7f\u20ac'", 0, "\x01\x7f\u20ac".encode(), id="odd-words"),
        pytest.param("echo \"it's\" '$x' \\\\", 0, b"it's $x \\\n", id="quoting"),
        pytest.param("no-such-program-here 2>/dev/null", 127, b"", id="not-found"),
        pytest.param("test -t 0 && test -t 1 && test -t 2", 0, b"", id="terminal"),
        pytest.param("set -C; echo >/dev/null; set +C", 0, b"", id="noclobber"),
    ],
)
async def test_a_command(shell: Shell, command: str, status: int, output: bytes) -> None:
    ran = await shell.run(command)
    assert (ran.status, ran.output) == (status, output)


@all_shells
@pytest.mark.parametrize(
    "command",
    [
        "if",
        "echo 'open",
        'echo "open',
        "echo $(open",
        "cat <<",
        ")",
        "f() {",
        "case x in",
        "${x?no}",
    ],
)
async def test_an_error_of_syntax_is_an_error_of_that_command_alone(
    shell: Shell, command: str
) -> None:
    assert (await shell.run(command)).status not in (0, None)
    assert (await shell.run("if :; then\n echo on\nfi")).output == b"on\n"
    assert (await shell.run("{ echo still; }")).output == b"still\n"


async def test_what_belongs_into_a_function_does_no_harm_outside(shell: Shell) -> None:
    ran = await shell.run("break; continue; return 5; local x")
    assert ran.status != 0
    assert await shell.output("echo on") == b"on\n"


@all_shells
async def test_the_working_directory_may_have_any_name(shell: Shell, tmp_path: Path) -> None:
    name = "a b\n'c' $d \u20ac"
    folder = tmp_path / "workspace" / name
    folder.mkdir()
    quoted = "'" + name.replace("'", "'\\''") + "'"
    assert (await shell.run(f"cd {quoted}")).cwd == str(folder)
    assert (await shell.run("rmdir ../*; echo gone")).output == b"gone\n"
    assert (await shell.run("cd ..")).cwd == str(tmp_path / "workspace")


@all_shells
async def test_a_link_to_a_directory_is_told_as_it_was_entered(
    shell: Shell, tmp_path: Path
) -> None:
    (tmp_path / "workspace" / "link").symlink_to("/usr")
    assert (await shell.run("cd link")).cwd == str(tmp_path / "workspace" / "link")


@also_served
async def test_ten_megabytes_arrive_byte_for_byte(shell: Shell) -> None:
    ran = await shell.run("head -c 10000000 /dev/zero | tr '\\0' '\\n'")
    assert ran.output == b"\n" * 10_000_000


@also_served
async def test_a_command_may_be_long(shell: Shell) -> None:
    text = "line\n" * 40_000
    assert await shell.output(f"x='{text}'; echo ${{#x}}") == b"200000\n"


@all_shells
async def test_hundreds_of_commands_leave_nothing_behind(shell: Shell) -> None:
    await shell.run("true")  # from its first word on there is a file for what a shell says
    ours = len(os.listdir("/proc/self/fd"))
    for _ in range(300):
        await shell.run("true")
    assert len(os.listdir("/proc/self/fd")) == ours
    # The three that everybody has, and one of its own; a few more until it is at its prompt.
    theirs = Path(f"/proc/{shell.process.pid}/fd")
    await until(lambda: len(os.listdir(theirs)) == 4)


# What runs on ---------------------------------------------------------------------------------


@all_shells
async def test_a_job_in_the_background_holds_nobody(shell: Shell) -> None:
    ran = await shell.run("sleep 100 & echo started")
    assert ran.output.splitlines()[-1] == b"started"
    assert ran.outcome.duration < 5
    assert await shell.output("kill %1 && echo killed") == b"killed\n"


@also_served
async def test_a_command_reads_from_the_terminal(shell: Shell) -> None:
    def answer(printed: bytes) -> None:
        if printed.endswith(b"name? "):
            shell.type(b"Ada\n")

    ran = await shell.run("printf 'name? '; read name; echo \"hello $name\"", when=answer)
    assert ran.output == b"name? hello Ada\n"


@all_shells
async def test_what_nobody_read_is_no_command(shell: Shell) -> None:
    shell.type(b"echo typed\n")
    assert await shell.output("echo mine") == b"mine\n"
    assert await shell.output('read line; echo "read $line"') == b"read echo typed\n"


# What cannot be faked -------------------------------------------------------------------------


@also_served
async def test_no_child_can_see_the_socket(shell: Shell) -> None:
    look = "for fd in /proc/self/fd/*; do readlink $fd; done"
    for command in (
        f"sh -c '{look}'",
        f"(sh -c '{look}')",
        f"f() {{ sh -c '{look}'; }}; f",
        f"sh -c '{look}' &\nwait",
    ):
        seen = await shell.output(command)
        assert b"/dev/pts/" in seen
        assert b"socket" not in seen


@all_shells
async def test_output_that_imitates_a_report_is_output(shell: Shell) -> None:
    fake = "began 0\\000done 0 0 /\\n\\000\\033]133;D;;aid=0\\007"
    ran = await shell.run(f"printf '{fake}'; (exit 9)")
    assert ran.status == 9
    assert ran.output == b"began 0\0done 0 0 /\n\0\x1b]133;D;;aid=0\x07"


@all_shells
async def test_output_that_ends_like_the_beginning_of_a_mark_is_output(shell: Shell) -> None:
    assert await shell.output("printf 'x\\033]133;D'") == b"x\x1b]133;D"


@all_shells
@pytest.mark.parametrize(
    "command",
    [
        pytest.param("exec 3>&-; exec 0<&-; exec </dev/null", id="descriptors-closed"),
        pytest.param("exec >/dev/null 2>&1", id="outputs-redirected"),
        pytest.param("exec 2>&-", id="error-output-closed"),
        pytest.param("unset IFS PS1 PS2 PATH PWD OLDPWD", id="variables-unset"),
        pytest.param("IFS=0123456789/dn; PWD=/fake; PS1=prompt; PS2=more", id="variables-set"),
        pytest.param("alias eval=false printf=false pwd=false", id="aliases"),
        pytest.param("printf() { :; }; pwd() { :; }; eval() { :; }", id="functions"),
        pytest.param("set -u; set -f; set -C; set -a", id="options"),
        pytest.param("trap 'echo trapped' INT TERM USR1", id="traps"),
        pytest.param("stty raw -echo; stty sane; stty -opost -echo", id="modes"),
        pytest.param("ulimit -n 40", id="few-descriptors"),
    ],
)
async def test_a_shell_that_was_bent_still_reports(shell: Shell, command: str) -> None:
    ran = await shell.run(command)
    assert ran.cwd is not None
    assert (await shell.run("cd /; (exit 4)")).status in (4, 2)  # 2: `unset PATH` in some
    ran = await shell.run("cd /usr; (exit 5)")
    assert (ran.status, ran.cwd) == (5, "/usr")


@pytest.mark.parametrize(
    "command",
    [
        "PROMPT_COMMAND='echo prompted; false'",
        "PS1='$(echo prompted)'",
        "PS0='before'; PS4='> '",
        "shopt -s extdebug; shopt -u expand_aliases",
        "set -o posix",
        "HISTFILE=/tmp/x; set -o history; set -H",
        "readonly PS1 PS2",
        "enable -n printf pwd",
    ],
)
async def test_a_bash_that_was_bent_still_reports(shell: Shell, command: str) -> None:
    assert (await shell.run(command)).output == b""
    for _ in range(2):
        ran = await shell.run('echo "!x"; cd /usr; (exit 5)')
        assert (ran.status, ran.cwd, ran.output) == (5, "/usr", b"!x\n")


async def test_traps_and_traces_of_bash_disturb_no_report(shell: Shell) -> None:
    await shell.run("trap 'echo traced' DEBUG")
    ran = await shell.run("(exit 6)")
    assert (ran.status, set(ran.output.split())) == (6, {b"traced"})
    await shell.run("trap - DEBUG; trap 'echo error' ERR")
    assert (await shell.run("true")).output == b""
    assert (await shell.run("(exit 6)")).status == 6
    assert (await shell.run("true")).output == b""
    await shell.run("trap - ERR; set -x")
    assert (await shell.run("true")).output == b"+ command eval true\n++ true\n"


# How it ends ----------------------------------------------------------------------------------


@also_served
@pytest.mark.parametrize(
    "command, status, number",
    [
        pytest.param("exit 3", 3, None, id="exit"),
        pytest.param("set -e; false; true", 1, None, id="errexit"),
        pytest.param("exec sh -c 'exit 8'", 8, None, id="exec"),
        pytest.param("kill -KILL $$", None, signal.SIGKILL, id="killed"),
    ],
)
async def test_a_shell_that_ends_is_told_with_its_own_status(
    shell: Shell, command: str, status: int | None, number: int | None
) -> None:
    ran = await shell.run(f"echo before; {command}")
    assert ran.output.removesuffix(b"exit\n") == b"before\n"
    exit = ran.outcome.exit
    assert exit is not None
    assert (exit.status, exit.signal, ran.status, ran.cwd) == (status, number, None, None)
    with pytest.raises(CallError) as caught:
        await shell.run("true")
    assert caught.value.code is Code.CONFLICT


@all_shells
async def test_a_trap_for_the_end_is_run(shell: Shell) -> None:
    await shell.run("trap 'echo bye' EXIT")
    assert b"bye\n" in (await shell.run("exit 0")).output


@all_shells
async def test_errexit_ends_no_shell_in_a_condition(shell: Shell) -> None:
    await shell.run("false || set -e")
    assert (await shell.run("if false; then :; fi; false || true")).status == 0


@also_served
async def test_an_interrupted_command_is_reported(shell: Shell) -> None:
    def interrupt(printed: bytes) -> None:
        if printed.endswith(b"go\n"):
            shell.type(b"\x03")

    # The program says so itself: by then the keys of the terminal reach it, not the shell.
    ran = await shell.run("sh -c 'echo go; exec sleep 100'; echo never", when=interrupt)
    assert (ran.status, ran.output.split()) == (130, [b"go"])
    assert await shell.output("echo $?") == b"130\n"


@all_shells
async def test_only_one_command_runs_at_a_time(shell: Shell) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(shell.run, "sleep 0.3")
        await anyio.sleep(0.05)
        with pytest.raises(CallError) as caught:
            await shell.run("true")
        assert caught.value.code is Code.CONFLICT
    assert (await shell.run("true")).status == 0


# Timeouts -------------------------------------------------------------------------------------


def living(shell: Shell) -> list[str]:
    """The commands that run below the shell."""
    pid = shell.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [Path(f"/proc/{child}/comm").read_text().strip() for child in children]


@all_shells
@pytest.mark.parametrize(
    "command",
    [
        pytest.param("sleep 100", id="program"),
        pytest.param("sleep 100 | sleep 100", id="pipeline"),
        pytest.param("sleep 100 & sleep 100", id="and-in-the-background"),
        pytest.param("(sleep 100; sleep 100)", id="subshell"),
        pytest.param("while :; do :; done", id="loop-of-its-own"),
        pytest.param("while :; do sleep 100; done", id="loop-of-programs"),
        pytest.param("sh -c 'trap \"\" TERM INT; while :; do sleep 100; done'", id="ignores-term"),
        pytest.param("read x", id="reads"),
    ],
)
async def test_a_command_that_takes_too_long_is_ended_and_the_shell_stays(
    shell: Shell, command: str
) -> None:
    await shell.run("kept=yes")
    ran = await shell.run(f"echo begun; {command}", timeout=0.15, grace=0.3)
    assert ran.outcome.timed_out
    assert (ran.output.splitlines() or [b""])[0].startswith(b"begun")
    assert ran.outcome.exit is None
    assert await shell.output("echo $kept") == b"yes\n"
    assert living(shell) == []


@also_served
async def test_a_timeout_spares_what_runs_since_earlier(shell: Shell) -> None:
    await shell.run("sleep 101 &")
    await anyio.sleep(0.05)  # start times have a grain of 10 ms
    ran = await shell.run("sleep 102", timeout=0.1, grace=0.3)
    assert ran.outcome.timed_out
    assert living(shell) == ["sleep"]


@all_shells
async def test_a_shell_that_cannot_be_brought_back_is_killed(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shellsession, "OVERTIME", 0.2)
    ran = await shell.run("trap '' INT; while :; do :; done", timeout=0.1, grace=0.1)
    assert ran.outcome.timed_out
    assert ran.outcome.exit is not None and ran.outcome.exit.signal == signal.SIGKILL
    assert not shell.process.running


@also_served
async def test_a_program_that_took_the_shells_place_is_ended(shell: Shell) -> None:
    ran = await shell.run("exec sleep 100", timeout=0.1, grace=0.1)
    assert ran.outcome.timed_out
    assert ran.outcome.exit is not None


@also_served
async def test_cancelling_ends_the_command_and_the_shell_stays(shell: Shell) -> None:
    with anyio.move_on_after(0.15) as scope:
        await shell.run("sleep 100", grace=0.3)
    assert scope.cancelled_caught
    assert living(shell) == []
    assert await shell.output("echo on") == b"on\n"


@also_served
async def test_a_signal_from_elsewhere_ends_a_command_as_well(shell: Shell) -> None:
    async def interrupt() -> None:
        await anyio.sleep(0.1)
        await shell.process.signal(signal.SIGINT, Target.FOREGROUND)

    async with anyio.create_task_group() as group:
        group.start_soon(interrupt)
        assert (await shell.run("sleep 100")).status == 130
    assert living(shell) == []


async def test_a_shell_that_reads_no_more_is_killed(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was stopped, and more than its socket holds is said to it."""
    monkeypatch.setattr(shellsession, "SEND_TIME", 0.1)
    await shell.process.signal(signal.SIGSTOP, Target.PROGRAM)
    ran = await shell.run(f": {'x' * 1_000_000}")
    assert ran.outcome.exit is not None and ran.outcome.exit.signal == signal.SIGKILL


async def test_a_shell_that_does_not_answer_takes_no_command(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shellsession, "READY_TIME", 0.1)
    await shell.process.signal(signal.SIGSTOP, Target.PROGRAM)
    assert shell.process.control is not None
    with pytest.raises(CallError) as caught:
        await ShellSession(shell.process, shell.process.control, SystemClock()).greet()
    assert caught.value.code is Code.CONFLICT


# Another core ---------------------------------------------------------------------------------


async def test_a_shell_outlives_the_core_that_started_it(tmp_path: Path) -> None:
    """Hands keeps it, and the next core goes on with it, without the words of the first."""
    path = tmp_path / "hands.sock"
    async with LocalHands.open_root(str(tmp_path)) as local, serve(local, path):
        async with core(path, tmp_path) as processes:
            process = await processes.start(Spec(shell_program("bash")), id=KEY, owner=None)
            processes.adopt_supervision(process)
            first = await session_in(process, OPENING)
            await first.run("kept=1; cd /usr; exec 2>/dev/null")
            before = process.outputs[1].size
        async with core(path, tmp_path) as processes:
            second = await session_in(processes.find(KEY))
            ran = await second.run("echo $kept")
            assert (ran.output, ran.cwd) == (b"1\n", "/usr")
            assert second.process.outputs[1].size > before > 0
            await second.process.kill(grace=0)
            await second.process.settled()
