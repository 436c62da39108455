"""A certificate that nobody trusts, with its key: for localhost and 127.0.0.1, until 2126."""

from __future__ import annotations

import ssl
from pathlib import Path

SELF_SIGNED = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg8aKIHeGtnAGY1Yhm
lIHp9iTgyUphN8sbEh3BkJQGpoqhRANCAASrRh+Abn317/lDhyGQ4p42Dc9YGpLv
8H6Gc2/OiFsj23sgl7OG/JhS8ukENn2vwtyKH3hWXyiQesLe2jOpDYbO
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBmjCCAUGgAwIBAgIUQyzpRz0YH1y1WH5BKFc+VX0Za5cwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMzE3NDgzNFoYDzIxMjYxMDMw
MTc0ODM0WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAASrRh+Abn317/lDhyGQ4p42Dc9YGpLv8H6Gc2/OiFsj23sgl7OG/JhS
8ukENn2vwtyKH3hWXyiQesLe2jOpDYbOo28wbTAdBgNVHQ4EFgQUsyQEBp9gAXMP
YIKNQQc4G5+WxMQwHwYDVR0jBBgwFoAUsyQEBp9gAXMPYIKNQQc4G5+WxMQwDwYD
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZI
zj0EAwIDRwAwRAIgNTmMlyovulzh0QpjRD6Q2Nw/tVKv91KDlj6J/Im4o7cCIFym
yndm5AR9splrgjP8nFpT1pMbAVJvD3EcISlynUsk
-----END CERTIFICATE-----
"""


def server_context(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """For a server that has it; and the file with it, for those who shall trust it."""
    pem = folder / "server.pem"
    pem.write_text(SELF_SIGNED)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem)
    return context, pem
