"""The platform endpoint: where a sidecar gets its tokens over HTTPS, by its run token.

    answers     what the endpoint answers, and what each refusal means
    client      the request; the only module that knows httpx, which is loaded with the first one
    runtoken    the run token in the state folder, replaced before it is used
    provider    a token provider that renews its token before it lapses

The wire, which `sidecar.hub.platform` serves and any platform may:

    POST <endpoint>/v1/token
    Authorization: Bearer <run token>
    {"run": "demo", "incarnation": "<uuid>", "reason": "start" | "refresh"}

    200  {"url", "token", "run_token", "expires_in", "generation"}
    401  {"error": "unauthorized"}   flat: a wrong, a retired and an unknown run token alike
    403  {"error": "run_ended"}      only to who bears a good run token of a run that has ended
    409  {"error": "superseded"}     another incarnation has started since
    429  Retry-After                 later

The endpoint decides to which hub its sidecars go: `url` may name any, over TLS or on loopback, as
a token file may. SIDECAR_HOSTS limits what an operator may name, not what they do.

Each answer carries the next run token. The endpoint takes the previous one until the next one is
used, so that an answer which is lost on the way, or with this process, costs nothing.
"""
