"""Where the token for the hub comes from: what it looks like, and who provides it.

    forms      what a token looks like, and where it may be sent
    provider   whom the channel asks at every dial
    file       a file that somebody else keeps fresh
    hooks      what the program learns from its tokens
    source     a provider as `sidecar run` has it, which also tells how it is
    repoint    what an operator asks for with `sidecar repoint`, and which hosts it may name
    switch     the provider under the channel, which is repointed

A platform endpoint that gives tokens is asked by `sidecar.platform`, which nobody loads who has
a token file.
"""

from sidecar.tokens.file import TokenFile
from sidecar.tokens.forms import (
    Oddity,
    Token,
    check_run,
    check_url,
    expiry,
    is_loopback,
    make_token,
    oddities,
    parse_client_url,
    parse_token,
    url_for_log,
)
from sidecar.tokens.provider import CallableProvider, FixedToken, Listener, TokenProvider, ask

__all__ = [
    "ask",
    "CallableProvider",
    "check_run",
    "check_url",
    "expiry",
    "FixedToken",
    "is_loopback",
    "Listener",
    "make_token",
    "oddities",
    "Oddity",
    "parse_client_url",
    "parse_token",
    "Token",
    "TokenFile",
    "TokenProvider",
    "url_for_log",
]
