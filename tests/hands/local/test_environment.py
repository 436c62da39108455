from __future__ import annotations

import os
import pwd

import pytest

from sidecar.hands.local import environment as module
from sidecar.hands.local.environment import base_environment

OURS = {
    b"PATH": b"/opt/bin:/bin",
    b"HOME": b"/home/agent",
    b"TZ": b"Europe/Vienna",
    b"SECRET": b"x",
    b"PWD": b"/somewhere",
    b"SIDECAR_TOKEN": b"x",
    b"SIDECAR_": b"x",
}


def test_a_clean_environment_has_what_a_login_sets() -> None:
    clean = base_environment("clean", OURS)
    assert clean[b"PATH"] == b"/opt/bin:/bin"
    assert clean[b"HOME"] == b"/home/agent"
    assert clean[b"TZ"] == b"Europe/Vienna"
    assert clean[b"TERM"] == b"dumb"
    assert clean[b"LANG"] == b"C.UTF-8"
    assert set(clean) == {b"PATH", b"HOME", b"TZ", b"TERM", b"LANG", b"USER", b"LOGNAME", b"SHELL"}


def test_an_inherited_environment_is_ours_less_our_settings() -> None:
    assert base_environment("inherited", OURS) == {
        b"PATH": b"/opt/bin:/bin",
        b"HOME": b"/home/agent",
        b"TZ": b"Europe/Vienna",
        b"SECRET": b"x",
    }


def test_what_we_lack_is_taken_from_the_account() -> None:
    clean = base_environment("clean", {})
    account = pwd.getpwuid(os.getuid())
    assert clean[b"USER"] == clean[b"LOGNAME"] == account.pw_name.encode()
    assert clean[b"HOME"] == account.pw_dir.encode()
    assert clean[b"PATH"] == module.DEFAULT_PATH


def test_a_user_without_an_account_has_a_home_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    clean = base_environment("clean", {})
    assert clean[b"HOME"] == b"/"
    assert clean[b"SHELL"] == b"/bin/sh"
    assert clean[b"USER"] == str(os.getuid()).encode()
