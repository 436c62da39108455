"""What is said, with how to mend it, before anything is started. As root, with the real program."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from supervised import AGENT, CORE, Supervised


def refusal(box: Supervised) -> str:
    """The one line, if nothing was started."""
    lines = box.log.splitlines()
    assert len(lines) == 1, box.log
    assert lines[0].startswith("sidecar supervise: ")
    return lines[0]


@pytest.mark.parametrize("name", ["SIDECAR_TOKEN", "SIDECAR_RUN_TOKEN"])
def test_a_token_in_the_environment_is_refused_and_not_shown(box: Supervised, name: str) -> None:
    box.start("true", **{name: "hush"})
    assert box.wait() == 78
    assert f"{name} is set: put the token into a file that only core's user may read" in refusal(
        box
    )
    assert "hush" not in box.log


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--agent-user=0"], "--agent-user is root, from whom nothing can be kept"),
        (["--core-user=root"], "--core-user is root, from whom nothing can be kept"),
        (["--agent-user=10001"], "--core-user and --agent-user are both uid 10001"),
        (["--agent-user=no-such"], "'no-such' is no user in /etc/passwd"),
        (["--grace=soon"], "--grace is 'soon': seconds, 0 to 172800, expected"),
    ],
)
def test_users_and_times_that_cannot_be(box: Supervised, flags: list[str], words: str) -> None:
    box.start("true", flags=flags)
    assert box.wait() == 78
    assert words in refusal(box)


def test_a_capability_that_is_missing_is_named(box: Supervised) -> None:
    box.start("true", prefix=["setpriv", "--bounding-set=-kill", "--inh-caps=-kill"])
    assert box.wait() == 77
    assert "we are uid 0, without CAP_KILL: this has to start as root and with " in refusal(box)


def test_the_three_capabilities_are_enough_where_the_folders_are_there(box: Supervised) -> None:
    for folder, uid, mode in ((box.state, CORE, 0o700), (box.socket.parent, AGENT, 0o755)):
        folder.mkdir(mode=mode)
        os.chown(folder, uid, uid)
    three = "-all,+setuid,+setgid,+kill"
    box.start("sh", "-c", "exit 9", prefix=["setpriv", f"--bounding-set={three}"])
    assert box.wait() == 9
    assert "core is process" in box.log


def test_folders_that_cannot_be_given_away_are_told(box: Supervised) -> None:
    three = "-all,+setuid,+setgid,+kill"
    box.start("true", prefix=["setpriv", f"--bounding-set={three}"])
    assert box.wait() == 77
    assert "cannot be given to uid 10002: CAP_CHOWN is missing; add it, or mount" in refusal(box)


def test_who_is_not_root_is_told_so(box: Supervised) -> None:
    box.start("true", prefix=["setpriv", "--reuid=10003", "--clear-groups"])
    assert box.wait() == 77
    assert "we are uid 10003, without CAP_SETUID, without CAP_SETGID" in refusal(box)


def test_a_token_that_core_may_not_read_is_told(box: Supervised) -> None:
    os.chown(box.token, 0, 0)
    box.start("true")
    assert box.wait() == 77
    assert (
        f"SIDECAR_TOKEN_FILE: core, uid 10001, may not read {box.token}: chown 10001 {box.token}"
        f" && chmod 0400 {box.token} (in a pod: defaultMode: 0400)"
    ) in refusal(box)


def test_a_token_that_the_agent_may_read_is_refused(box: Supervised) -> None:
    box.token.chmod(0o444)
    box.start("true")
    assert box.wait() == 77
    assert f"the agent, uid 10002, may read {box.token}: chown 10001" in refusal(box)


def test_a_token_that_is_not_there_yet_is_cores_to_wait_for(box: Supervised) -> None:
    box.token.unlink()
    box.start("sh", "-c", "exit 4")
    assert box.wait() == 4


def test_a_volume_that_was_just_made_becomes_cores(box: Supervised) -> None:
    box.state.mkdir()
    box.state.chmod(0o777)
    (box.state / "lost+found").mkdir()
    box.start("true")
    assert box.wait() == 0
    found = box.state.stat()
    assert (found.st_uid, found.st_mode & 0o7777) == (CORE, 0o700)


def test_a_folder_with_something_in_it_is_not_taken(box: Supervised) -> None:
    box.state.mkdir()
    (box.state / "precious").touch()
    box.start("sleep", "60")
    assert box.wait() == 77
    assert box.state.stat().st_uid == 0
    assert "belongs to uid 0, we are 10001" in box.log


def test_a_socket_folder_that_is_not_the_agents_is_told_and_not_changed(box: Supervised) -> None:
    box.socket.parent.mkdir(mode=0o755)
    box.start("true")
    assert box.wait() == 77
    assert f"{box.socket.parent}: Permission denied for uid 10002: chown 10002 " in refusal(box)
    assert box.socket.parent.stat().st_uid == 0


def test_a_program_of_ours_that_the_agent_may_change_is_refused(box: Supervised) -> None:
    package = box.folder / "package"
    source = Path(__file__).parents[2] / "sidecar"
    package.mkdir()
    subprocess.run(["cp", "-r", source, package / "sidecar"], check=True)
    os.chown(package / "sidecar", AGENT, AGENT)
    box.start("true", PYTHONPATH=str(package))
    assert box.wait() == 77
    assert f"the agent, uid 10002, may write {package}/sidecar, which core runs" in refusal(box)


@pytest.mark.slow  # it waits until core serves
def test_code_in_the_working_directory_or_a_home_is_not_run(box: Supervised) -> None:
    site = "lib/python{}.{}/site-packages".format(*sys.version_info)
    home = box.workspace / ".local" / site
    home.mkdir(parents=True)
    (home / "usercustomize.py").write_text("import os; os._exit(99)")
    (box.workspace / "anyio.py").write_text("import os; os._exit(98)")
    box.start("sleep", "60", HOME=str(box.workspace))
    box.says("sidecar.runtime: sidecar ")
    assert " ended with" not in box.log
