"""Errors: the table of codes is true, and each error says what came and what was allowed."""

from __future__ import annotations

import errno
import inspect
import os
import re

import pytest

from sidecar import errors
from sidecar.errors import (
    CallError,
    Code,
    Invalid,
    LimitExceeded,
    Outside,
    Retry,
    Started,
    default_retry,
    from_os_error,
    show_path,
)


def test_the_table_in_the_docstring_names_every_code_and_its_retry() -> None:
    rows = re.findall(r"^    ([a-z_]+) {2,}.*? (never|same_id|new_id)$", errors.__doc__ or "", re.M)
    assert dict(rows) == {str(code): str(default_retry(code)) for code in Code}


def test_the_tree_in_the_docstring_is_the_tree_of_classes() -> None:
    drawn = set(re.findall(r"^    [│├└─ ]*([A-Z]\w+) ", errors.__doc__ or "", re.M))
    classes = {
        name
        for name, item in inspect.getmembers(errors, inspect.isclass)
        if issubclass(item, errors.SidecarError)
    }
    assert drawn == classes


def test_an_error_is_a_sentence_with_its_code() -> None:
    error = CallError(Code.CONFLICT, "it came before", started=Started.YES, call="x")
    assert str(error) == "conflict: it came before"
    assert (error.started, error.retry, error.details) == (
        Started.YES,
        Retry.NEVER,
        {"call": "x"},
    )


def test_a_limit_says_what_came_and_what_was_allowed() -> None:
    error = LimitExceeded("open calls", size=257, limit=256)
    assert str(error) == "limit: open calls: 257, at most 256 allowed"
    assert error.details == {"size": 257, "limit": 256}
    assert error.retry is Retry.NEW_ID


@pytest.mark.parametrize(
    "error, code, message",
    [
        (Invalid("no such signal"), Code.INVALID, "no such signal"),
        (Outside("../x"), Code.OUTSIDE, "'../x' leaves the workspace"),
        (Outside(b"../\xff"), Code.OUTSIDE, r"'../\udcff' leaves the workspace"),
    ],
)
def test_each_kind_has_its_code(error: CallError, code: Code, message: str) -> None:
    assert (error.code, error.message, error.started) == (code, message, Started.NO)


@pytest.mark.parametrize("path, shown", [("a b", "'a b'"), (b"a", "'a'"), (b"\xff", r"'\udcff'")])
def test_a_path_is_shown_as_printable_text(path: str | bytes, shown: str) -> None:
    assert show_path(path) == shown
    assert show_path(path).encode()  # it can be sent


@pytest.mark.parametrize(
    "number, code",
    [
        (errno.EACCES, Code.PERMISSION_DENIED),
        (errno.ENOENT, Code.NOT_FOUND),
        (errno.EEXIST, Code.EXISTS),
        (errno.EISDIR, Code.IS_DIRECTORY),
        (errno.ENOTDIR, Code.NOT_DIRECTORY),
        (errno.ENOTEMPTY, Code.NOT_EMPTY),
        (errno.ENOSPC, Code.NO_SPACE),
        (errno.EDQUOT, Code.NO_SPACE),
        (errno.EROFS, Code.READ_ONLY),
        (errno.EMFILE, Code.LIMIT),
        (errno.ENOSYS, Code.UNSUPPORTED),
        (errno.EIO, Code.IO_ERROR),
    ],
)
def test_an_error_of_the_system_gets_a_code_and_keeps_its_name(number: int, code: Code) -> None:
    error = from_os_error(OSError(number, "x", "/secret/place"), "a.txt", started=Started.YES)
    assert error.code is code
    assert error.message == f"'a.txt': {os.strerror(number)}"
    assert error.details == {"errno": errno.errorcode[number], "path": "a.txt"}
    assert error.started is Started.YES


def test_an_error_of_the_system_without_a_number_keeps_its_words() -> None:
    error = from_os_error(OSError("no address found"), b"host")
    assert (error.code, error.message) == (Code.IO_ERROR, "'host': no address found")


def test_the_reasons_of_channel_errors_differ() -> None:
    reasons = {
        kind.reason
        for kind in (
            errors.TokenExpired,
            errors.TokenRefused,
            errors.NoToken,
            errors.Replaced,
            errors.NetworkFailure,
        )
    }
    assert len(reasons) == 5
