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


CODES_OF_THE_SYSTEM = {
    Code.PERMISSION_DENIED: "EACCES EPERM ENOKEY EKEYEXPIRED EKEYREVOKED EKEYREJECTED",
    Code.NOT_FOUND: "ENOENT",
    Code.EXISTS: "EEXIST",
    Code.IS_DIRECTORY: "EISDIR",
    Code.NOT_DIRECTORY: "ENOTDIR",
    Code.NOT_EMPTY: "ENOTEMPTY",
    Code.NO_SPACE: "ENOSPC EDQUOT EFBIG",
    Code.READ_ONLY: "EROFS",
    Code.BUSY: "EBUSY ETXTBSY",
    Code.SOURCE_CHANGED: "ESTALE",
    Code.LIMIT: "EMFILE ENFILE EAGAIN ENOMEM ENOBUFS ENOLCK EUSERS E2BIG EMLINK",
    Code.INVALID: "ENAMETOOLONG EINVAL ELOOP EILSEQ",
    Code.UNSUPPORTED: "EXDEV ENOSYS EOPNOTSUPP EOVERFLOW ENOTTY ESPIPE ENXIO ENODEV",
    # Only some of the rest: what file systems of disks, networks and other processes answer.
    Code.IO_ERROR: "EIO ENOTCONN ETIMEDOUT EINTR EUCLEAN EREMOTEIO ECONNABORTED EHOSTDOWN EBADF",
}


@pytest.mark.parametrize(
    "name, code",
    [(name, code) for code, names in CODES_OF_THE_SYSTEM.items() for name in names.split()],
)
def test_an_error_of_the_system_gets_a_code_and_keeps_its_name(name: str, code: Code) -> None:
    number = getattr(errno, name)
    error = from_os_error(OSError(number, "x", "/secret/place"), "a.txt", started=Started.YES)
    assert error.code is code
    assert error.message == f"'a.txt': {os.strerror(number)}"
    assert error.details["path"] == "a.txt"
    assert getattr(errno, error.details["errno"]) == number  # ENOTSUP is EOPNOTSUPP
    assert error.started is Started.YES


def test_no_error_of_the_system_has_a_code_that_the_table_does_not_show() -> None:
    shown = {getattr(errno, n) for names in CODES_OF_THE_SYSTEM.values() for n in names.split()}
    hidden = {
        name
        for number, name in errno.errorcode.items()
        if from_os_error(OSError(number, ""), "x").code is not Code.IO_ERROR and number not in shown
    }
    assert hidden == set()


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
