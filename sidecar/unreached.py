"""Why a host cannot be reached, and what to look at, in one sentence.

The system says "Name or service not known" and OpenSSL "CERTIFICATE_VERIFY_FAILED"; whoever set a
sandbox up needs to know of which host, by which way, and what would mend it. Nothing here quotes
a URL: those hold tokens and passwords.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl
import time
from dataclasses import dataclass
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

# X509_V_ERR_*, openssl/x509_vfy.h
_NOT_YET_VALID, _EXPIRED, _OTHER_NAME, _OTHER_ADDRESS = 9, 10, 62, 64

_NO_WAY = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETDOWN}
_FORBIDDEN = {errno.EACCES, errno.EPERM}  # a firewall of this machine, or a sandbox


SENSELESS_PROXY = "the proxy of the environment makes no sense (https_proxy, all_proxy)"


@dataclass(frozen=True, slots=True)
class Way:
    """Where we wanted to get: `host` and `proxy` as HOST:PORT, and by what it is trusted."""

    host: str
    proxy: str | None = None
    trusted_by: str = "the certificates of this system"

    @property
    def first(self) -> str:
        """Whom we dial ourselves."""
        return self.host if self.proxy is None else f"the proxy {self.proxy}"


def explain(error: BaseException, way: Way) -> str:
    """The sentence for a failure of DNS, TCP or TLS, or of whatever wraps one."""
    cause = _root(error)
    match cause:
        case ssl.SSLCertVerificationError():
            return _explain_certificate(cause, way)
        case ssl.SSLError():
            return _explain_tls(cause, way)
        case socket.gaierror():
            reason = cause.strerror or "the name is not known"
            return f"{way.first} cannot be found ({reason}): check the name, and DNS here"
        case TimeoutError():
            return explain_silence(way)
        case OSError():
            return _explain_system(cause, way)
        case EOFError():
            return f"{way.first} hung up before it answered: no hub, or a firewall?"
    return f"{way.host}: {type(cause).__name__}: {cause}"


def explain_silence(way: Way, seconds: float | None = None) -> str:
    """Nobody said anything in time."""
    time_given = "" if seconds is None else f" within {seconds:.0f} s"
    help = "is egress to it allowed, or is a proxy needed (https_proxy)?"
    if way.proxy is not None:
        help = "does the proxy let us through?"
    return f"{way.first} gave no answer{time_given}: {help}"


def explain_proxy(way: Way, answer: str) -> str:
    """The proxy answered with a no: `answer` has its HTTP status."""
    help = "let it do so"
    if "407" in answer:
        help = "it wants https_proxy=http://NAME:PASSWORD@HOST:PORT"
    return f"{way.first} does not connect us to {way.host} ({answer}): {help}"


def proxy_of_environment(scheme: str, host: str) -> str | None:
    """HOST:PORT of the proxy that the environment names for `host`, without its password."""
    proxies = getproxies()
    url = proxies.get(scheme) or proxies.get("all")
    if not url or proxy_bypass(host):
        return None
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        return f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
    except ValueError:
        return None


def _explain_system(error: OSError, way: Way) -> str:
    number = error.errno or _number_in(str(error))
    reason = os.strerror(number) if number else error.strerror or str(error) or "unknown"
    if number == errno.ECONNREFUSED:
        return f"nobody listens at {way.first} (connection refused): check host and port"
    if number in (errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED):
        return f"{way.first} hung up before it answered ({reason}): no hub, or a firewall?"
    if number in _NO_WAY:
        return f"there is no way to {way.first} ({reason}): is a proxy needed (https_proxy)?"
    if number in _FORBIDDEN:
        return f"this machine does not let us dial {way.first} ({reason}): is egress allowed?"
    if number == errno.ETIMEDOUT:
        return explain_silence(way)
    return f"{way.first} cannot be reached: {reason}"


def _explain_certificate(error: ssl.SSLCertVerificationError, way: Way) -> str:
    reason = error.verify_message.rstrip(".")
    if error.verify_code in (_EXPIRED, _NOT_YET_VALID):
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        help = f"renew it, or set the clock of this machine, by which it is {now}"
    elif error.verify_code in (_OTHER_NAME, _OTHER_ADDRESS):
        help = "dial it by the name that is in its certificate"
    else:
        help = f"name a file with its CA in SSL_CERT_FILE; we go by {way.trusted_by}"
    return f"the certificate of {way.host} is not trusted ({reason}): {help}"


def _explain_tls(error: ssl.SSLError, way: Way) -> str:
    reason = (error.reason or str(error)).replace("_", " ").lower()
    if error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNEXPECTED_MESSAGE"):
        help = "check the port" if way.proxy is None else "check the port, and that of the proxy"
        return f"{way.host} does not speak TLS ({reason}): {help}"
    return f"TLS with {way.host} failed: {reason}"


def _number_in(text: str) -> int:
    """Of the first of several failures: asyncio then makes one error without a number."""
    found = re.search(r"\[Errno (\d+)\]", text)
    return int(found[1]) if found else 0


def _root(error: BaseException) -> BaseException:
    """The innermost failure of the system or of TLS; `error` itself if there is none."""
    found = error
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        if isinstance(at, OSError) and (at.errno or isinstance(at, ssl.SSLError)):
            found = at
        if isinstance(at, BaseExceptionGroup):
            at = at.exceptions[0]
        else:
            at = at.__cause__ or at.__context__
    return found
