"""Which certificate authorities vouch for a hub or an endpoint.

The interpreter may run in an image that it was not made for, where the places in which its
OpenSSL looks are empty, or in one that has no certificates at all. In this order:

    SSL_CERT_FILE, SSL_CERT_DIR    what the operator says, as OpenSSL reads it, and nothing more
    where OpenSSL looks            compiled in: `ssl.get_default_verify_paths`
    where distributions put them   one file each, the first that holds any
    certifi                        Mozilla's list, which comes with httpx

Sources: SSL_CTX_set_default_verify_paths(3); the list of files is that of Go's crypto/x509
(root_linux.go). Reading a store takes some 25 ms: call `load_trust_store` in a thread.
"""

from __future__ import annotations

import logging
import os
import re
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

WELL_KNOWN = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine, Arch, Gentoo
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL 6
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # RHEL 7 and later
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/pki/tls/cacert.pem",
    "/etc/ssl/cert.pem",  # Alpine
)
OF_OPERATOR = ("SSL_CERT_FILE", "SSL_CERT_DIR")

_log = logging.getLogger(__name__)
_told: set[str] = set()  # problems; each once, however many contexts are made


@dataclass(frozen=True, slots=True)
class TrustStore:
    """`context` checks certificates and host names; `source` says in words by what."""

    context: ssl.SSLContext
    source: str
    problem: str | None = None  # with what the operator named, or there is none at all


def load_trust_store() -> TrustStore:
    """The store that this process is to use. Blocks."""
    found = find_trust_store(os.environ, ssl.get_default_verify_paths(), WELL_KNOWN)
    if found.problem is not None and found.problem not in _told:
        _told.add(found.problem)
        _log.warning("%s", found.problem)
    _log.debug("certificates are checked with %s", found.source)
    return found


def find_trust_store(
    environ: Mapping[str, str], defaults: ssl.DefaultVerifyPaths, well_known: Iterable[str]
) -> TrustStore:
    """`load_trust_store`, of what is given. Blocks."""
    context = ssl.create_default_context()  # reads the environment and the default places
    said = [f"{name}={environ[name]}" for name in OF_OPERATOR if name in environ]
    if said:
        return TrustStore(context, " and ".join(said), _problem_of(environ, context))
    if _holds_any(context):
        return TrustStore(context, str(defaults.cafile))
    if defaults.capath and _is_hashed_folder(defaults.capath):
        return TrustStore(context, defaults.capath)
    for path in well_known:
        if _load(context, path):
            return TrustStore(context, path)
    return _with_certifi(context)


def _with_certifi(context: ssl.SSLContext) -> TrustStore:
    try:
        import certifi
    except ImportError:  # somebody packaged httpx without it
        path = None
    else:
        path = certifi.where()
    if path is not None and _load(context, path):
        return TrustStore(context, f"certifi ({path}), as this image has no certificates")
    problem = (
        "there are no CA certificates in this image, so no TLS can be trusted:"
        " install ca-certificates, or name a file with them in SSL_CERT_FILE"
    )
    return TrustStore(context, "nothing", problem)


def _problem_of(environ: Mapping[str, str], context: ssl.SSLContext) -> str | None:
    """What is wrong with the file that the operator names. A folder is read when it is needed."""
    path = environ.get("SSL_CERT_FILE")
    if path is None or _holds_any(context):
        return None
    try:
        with open(path, "rb"):
            why = "it holds no certificate"
    except OSError as error:
        why = error.strerror or str(error)
    return f"SSL_CERT_FILE is {path!r}: {why}; name a PEM file with the CAs to trust, or unset it"


def _load(context: ssl.SSLContext, path: str) -> bool:
    """Whether `path` is there and holds certificates; `context` then trusts them."""
    try:
        context.load_verify_locations(path)
    except OSError:  # an `SSLError`, too: no PEM
        return False
    return _holds_any(context)


def _holds_any(context: ssl.SSLContext) -> bool:
    return context.cert_store_stats()["x509"] > 0


def _is_hashed_folder(path: str) -> bool:
    """Whether OpenSSL would find certificates there: named for their hashes (openssl-rehash(1))."""
    try:
        with os.scandir(path) as entries:
            return any(re.fullmatch(r"[0-9a-f]{8}\.\d+", entry.name) for entry in entries)
    except OSError:
        return False
