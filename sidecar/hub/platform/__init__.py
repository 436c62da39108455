"""The platform endpoint of the embedded hub: runs, run tokens, tokens for controllers.

It stands in for a platform's own endpoint, on the hub's port, for `sidecar dev`, tests and
developers. Its state is in memory, and in a file (0600) if one is named.

    POST   /platform/v1/token                  a run token for the next one and a hub token
    POST   /platform/v1/runs/<run>             starts a run, or one more chain of its run tokens
    GET    /platform/v1/runs/<run>             its generation and incarnation
    POST   /platform/v1/runs/<run>/end         it gets no more tokens
    POST   /platform/v1/controllers/<id>       a hub token for a controller
    POST   /platform/v1/keys                   one more platform key
    DELETE /platform/v1/keys/<id>              retires one

The first wants a run token as its bearer, all others a platform key; `endpoint` has the bodies.
`secrets` says how both are made and kept, `attempts` how often they may be guessed, `run` which
of them are good and who is superseded.
"""

from __future__ import annotations

from sidecar.hub.platform.platform import Platform

__all__ = ["Platform"]
