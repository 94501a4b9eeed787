"""Replies of servers that are not trusted, read in bounded memory.

A server decides how long its reply is: without end, or a megabyte that unpacks to a gigabyte. So replies are asked for
unpacked, a packed one is refused, and one that is longer than any honest reply can be is an error of the connection.
"""

from __future__ import annotations

from typing import Any

import httpx

MOST_BYTES = 16 << 20


def ask(client: httpx.Client, method: str, url: str, *, most_bytes: int = MOST_BYTES, **sent: Any) -> httpx.Response:
    """As `client.request`, the reply's body read up to a bound.

    Raises:
        httpx.HTTPError: as `client.request`; also for a reply that is packed or longer than `most_bytes`.
    """
    headers = {**sent.pop("headers", {}), "Accept-Encoding": "identity"}
    with client.stream(method, url, headers=headers, **sent) as response:
        return httpx.Response(
            response.status_code, headers=response.headers, content=body_of(response, most_bytes),
            request=response.request,
        )  # fmt: skip


def body_of(response: httpx.Response, most_bytes: int = MOST_BYTES) -> bytes:
    """The body of a streamed reply.

    Raises:
        httpx.DecodingError: it is packed, or longer than `most_bytes`.
    """
    packed = response.headers.get("content-encoding", "identity")
    if packed.strip().lower() not in ("", "identity"):
        raise httpx.DecodingError(f"the reply is packed ({packed[:40]!a}), which was not asked for")
    body = bytearray()
    for chunk in response.iter_raw(64 << 10):
        body += chunk
        if len(body) > most_bytes:
            raise httpx.DecodingError(f"the reply is longer than {most_bytes:,} bytes")
    return bytes(body)
