"""The errors of the sidecar and their codes on the wire.

An error says whose fault it is, what came, what was expected, and what the caller
may do next. Four kinds:

    SidecarError                    base; never raised itself
    ├── CallError                   answers one call; carries a code (table below)
    │   ├── Invalid                 the caller's arguments
    │   ├── Outside                 a path that leaves the workspace, and the other roots
    │   └── LimitExceeded           a stated bound was reached
    ├── ProtocolError               the peer broke the wire protocol
    ├── SettingsError               this process was set up wrongly
    └── ChannelError                the channel to the hub
        ├── TokenExpired            the token has lapsed; a new one mends it
        ├── TokenRefused            the hub will not have this token
        │   └── RunTokenRefused     the platform endpoint will not have our run token
        ├── NoToken                 there is no token to dial with
        ├── TooManyRequests         the platform endpoint wants to be asked later
        ├── Superseded              a later start of this run has taken over; final
        ├── RunEnded                the platform says that the run has ended; final
        ├── Replaced                another connection took this one's place
        └── NetworkFailure          the world: DNS, TCP, TLS, proxies, HTTP 5xx

The codes, what they mean, and what a caller may do (`retry`: never | same_id | new_id):

    denied               policy forbids it                                     never
    forbidden            the caller's scope does not cover it                  never
    permission_denied    the operating system refused (EACCES, EPERM)          never
    outside              the path leaves the workspace, and the other roots    never
    not_found            no such file, program, or process                     never
    exists               it is there already                                   never
    is_directory         a file was needed                                     never
    not_directory        a directory was needed                                never
    not_empty            the directory still has entries                       never
    no_space             disk or quota is full                                 new_id
    read_only            the file system or the root is for reading only       never
    busy                 in use: a mount point, or a file that is executed     new_id
    limit                a stated bound (open calls, sizes, credit)            new_id
    invalid              malformed envelope or arguments                       never
    unknown_command      the catalogue has no such command                     never
    unsupported          known, but not here (kernel, platform, version)       never
    hands_away           the half that acts is not connected                   new_id
    timeout              a total or idle timeout fired (details: which)        new_id
    cancelled            the caller cancelled it                               new_id
    conflict             the same call id came with other arguments            never
    expired_id           the call id is older than what receipts remember      new_id
    unknown_call         no receipt for this call id                           same_id
    not_accepted         no answer within the time to accept                   new_id
    outcome_unknown      it started; how it ended cannot be known              never
    interrupted          a restart cut an upload short; its part is kept       new_id
    answer_gone          it ended; the stored answer was evicted               never
    needs_attachment     the answer is too large for a caller not attached     new_id
    precondition_failed  an etag or digest condition did not hold              new_id
    digest_mismatch      the bytes that arrived are not the bytes that left    new_id
    source_changed       the file changed or moved while it was being read     new_id
    ending               this sidecar takes no calls any more: it ends         same_id
    io_error             another operating system error (details: errno)       new_id
    internal             a defect of ours; the log has the traceback           new_id
"""

from __future__ import annotations

import errno
import os
from enum import StrEnum
from typing import Any


class Code(StrEnum):
    """Wire codes; the module's head says what each one means."""

    DENIED = "denied"
    FORBIDDEN = "forbidden"
    PERMISSION_DENIED = "permission_denied"
    OUTSIDE = "outside"
    NOT_FOUND = "not_found"
    EXISTS = "exists"
    IS_DIRECTORY = "is_directory"
    NOT_DIRECTORY = "not_directory"
    NOT_EMPTY = "not_empty"
    NO_SPACE = "no_space"
    READ_ONLY = "read_only"
    BUSY = "busy"
    LIMIT = "limit"
    INVALID = "invalid"
    UNKNOWN_COMMAND = "unknown_command"
    UNSUPPORTED = "unsupported"
    HANDS_AWAY = "hands_away"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    CONFLICT = "conflict"
    EXPIRED_ID = "expired_id"
    UNKNOWN_CALL = "unknown_call"
    NOT_ACCEPTED = "not_accepted"
    OUTCOME_UNKNOWN = "outcome_unknown"
    INTERRUPTED = "interrupted"
    ANSWER_GONE = "answer_gone"
    NEEDS_ATTACHMENT = "needs_attachment"
    PRECONDITION_FAILED = "precondition_failed"
    DIGEST_MISMATCH = "digest_mismatch"
    SOURCE_CHANGED = "source_changed"
    ENDING = "ending"
    IO_ERROR = "io_error"
    INTERNAL = "internal"


class Started(StrEnum):
    """Whether the command had begun to act when the error arose."""

    NO = "no"
    YES = "yes"
    UNKNOWN = "unknown"


class Retry(StrEnum):
    """What a caller may do: nothing, send the same call id again, or a new one."""

    NEVER = "never"
    SAME_ID = "same_id"
    NEW_ID = "new_id"


_NEW_ID = {
    Code.NO_SPACE,
    Code.BUSY,
    Code.LIMIT,
    Code.HANDS_AWAY,
    Code.TIMEOUT,
    Code.CANCELLED,
    Code.EXPIRED_ID,
    Code.NOT_ACCEPTED,
    Code.NEEDS_ATTACHMENT,
    Code.INTERRUPTED,
    Code.PRECONDITION_FAILED,
    Code.DIGEST_MISMATCH,
    Code.SOURCE_CHANGED,
    Code.IO_ERROR,
    Code.INTERNAL,
}
_SAME_ID = {Code.UNKNOWN_CALL, Code.ENDING}


def default_retry(code: Code) -> Retry:
    """What the table in the module's head says of `code`."""
    if code in _NEW_ID:
        return Retry.NEW_ID
    return Retry.SAME_ID if code in _SAME_ID else Retry.NEVER


class SidecarError(Exception):
    """Base of every error of this package."""


class CallError(SidecarError):
    """The one answer to a call that failed.

    `details` are plain values (str, int, bytes, None) that travel beside the sentence,
    so that a program need not parse it. Never put a secret or a path outside the
    workspace into either.
    """

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        started: Started = Started.NO,
        retry: Retry | None = None,
        **details: Any,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.started = started
        self.retry = default_retry(code) if retry is None else retry
        self.details = details

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class Invalid(CallError):
    """The caller's arguments: what came, and what was expected."""

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(Code.INVALID, message, **details)


class Outside(CallError):
    """A path that leaves its root, by `..`, a symbolic link or an absolute name."""

    def __init__(self, path: str | bytes) -> None:
        super().__init__(Code.OUTSIDE, f"{show_path(path)} leaves the workspace", path=path)


class LimitExceeded(CallError):
    """A stated bound: `LimitExceeded("open calls", size=257, limit=256)`."""

    def __init__(self, what: str, *, size: int, limit: int, **details: Any) -> None:
        super().__init__(
            Code.LIMIT,
            f"{what}: {size}, at most {limit} allowed",
            size=size,
            limit=limit,
            **details,
        )


class ProtocolError(SidecarError):
    """The peer broke the wire protocol: the sentence says what came and what was expected."""


class SettingsError(SidecarError):
    """This process was set up wrongly; the sentence says what is missing and how to mend it."""


class ChannelError(SidecarError):
    """A connection to the hub failed or ended; the subclasses say why.

    `retry_after`: seconds until a further try makes sense, if whoever refused said so. Final: no
    further try does, until somebody provides another token.
    """

    reason = "network"
    is_final = False

    def __init__(self, *args: object, retry_after: float | None = None) -> None:
        super().__init__(*args)
        self.retry_after = retry_after


class TokenExpired(ChannelError):
    """The token has lapsed; a new one mends it."""

    reason = "expired"


class TokenRefused(ChannelError):
    """The hub will not have this token (401 or 403 on a token that has not lapsed)."""

    reason = "refused"


class RunTokenRefused(TokenRefused):
    """The platform endpoint will not have our run token, and so there is no token for the hub."""


class NoToken(ChannelError):
    """There is no token to dial with: the sentence says where it was sought and what was found."""

    reason = "no_token"


class TooManyRequests(ChannelError):
    """The platform endpoint wants to be asked later (HTTP 429)."""

    reason = "too_many"


class Superseded(ChannelError):
    """A later start of this run has taken over; this one only comes back by a repoint."""

    reason = "superseded"
    is_final = True


class RunEnded(ChannelError):
    """The platform says that the run has ended."""

    reason = "run_ended"
    is_final = True


class Replaced(ChannelError):
    """Another connection recovered this session, or the hub closed it on purpose."""

    reason = "replaced"


class NetworkFailure(ChannelError):
    """The world: DNS, TCP, TLS, proxies, HTTP 5xx, a link that went silent."""

    reason = "network"


# What errno(3), the man page of a call, or a file system's documentation gives as the reason for
# a call about a path or a program. What is not here is `io_error`: a disk, a network or a server
# that failed (EIO, ENOTCONN of a dead FUSE server, ETIMEDOUT of a soft NFS mount, EUCLEAN, ...),
# and EINTR, after which Python calls again by itself (PEP 475).
_ERRNO_CODES = {
    errno.EACCES: Code.PERMISSION_DENIED,
    errno.EPERM: Code.PERMISSION_DENIED,
    errno.ENOKEY: Code.PERMISSION_DENIED,  # an encrypted directory that is locked (fscrypt)
    errno.EKEYEXPIRED: Code.PERMISSION_DENIED,
    errno.EKEYREVOKED: Code.PERMISSION_DENIED,
    errno.EKEYREJECTED: Code.PERMISSION_DENIED,
    errno.ENOENT: Code.NOT_FOUND,
    errno.EEXIST: Code.EXISTS,
    errno.EISDIR: Code.IS_DIRECTORY,
    errno.ENOTDIR: Code.NOT_DIRECTORY,
    errno.ENOTEMPTY: Code.NOT_EMPTY,
    errno.ENOSPC: Code.NO_SPACE,
    errno.EDQUOT: Code.NO_SPACE,
    errno.EFBIG: Code.NO_SPACE,
    errno.EROFS: Code.READ_ONLY,
    errno.EBUSY: Code.BUSY,
    errno.ETXTBSY: Code.BUSY,
    errno.ESTALE: Code.SOURCE_CHANGED,  # its server knows the file no more
    errno.EMFILE: Code.LIMIT,
    errno.ENFILE: Code.LIMIT,
    errno.EAGAIN: Code.LIMIT,
    errno.ENOMEM: Code.LIMIT,
    errno.ENOBUFS: Code.LIMIT,
    errno.ENOLCK: Code.LIMIT,
    errno.EUSERS: Code.LIMIT,
    errno.E2BIG: Code.LIMIT,
    errno.EMLINK: Code.LIMIT,  # names of one file, or directories in one
    errno.ENAMETOOLONG: Code.INVALID,
    errno.EINVAL: Code.INVALID,
    errno.ELOOP: Code.INVALID,
    errno.EILSEQ: Code.INVALID,  # no UTF-8, where a file system takes nothing else
    errno.EXDEV: Code.UNSUPPORTED,  # no rename and no link between two file systems
    errno.ENOSYS: Code.UNSUPPORTED,
    errno.EOPNOTSUPP: Code.UNSUPPORTED,
    errno.EOVERFLOW: Code.UNSUPPORTED,
    errno.ENOTTY: Code.UNSUPPORTED,
    errno.ESPIPE: Code.UNSUPPORTED,
    errno.ENXIO: Code.UNSUPPORTED,  # a socket, or a device that is not there
    errno.ENODEV: Code.UNSUPPORTED,
}


def show_path(path: str | bytes) -> str:
    """`path` for a sentence: names that are not UTF-8 keep their bytes visible."""
    return repr(os.fsdecode(path)) if isinstance(path, bytes) else repr(path)


def from_os_error(error: OSError, what: str | bytes, *, started: Started = Started.NO) -> CallError:
    """`error` as a coded error about `what`, the path or program as the caller wrote it."""
    number = error.errno or 0
    reason = os.strerror(number) if number else str(error)
    name = errno.errorcode.get(number, "")
    return CallError(
        _ERRNO_CODES.get(number, Code.IO_ERROR),
        f"{show_path(what)}: {reason}",
        started=started,
        errno=name,
        path=what,
    )
