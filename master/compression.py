"""Answers in fewer bytes, for those who say that they can read them."""

import gzip
import re

from flask import Response, request

#: Most of what there is to gain, at a third of the time of the most thorough.
LEVEL = 5
#: What is shorter fits into one packet anyway.
SHORTEST = 1000

_GZIP = re.compile(r"(?:^|,)\s*(?:x-)?gzip\s*(?:;\s*q=(?P<quality>[0-9.]+)\s*)?(?:,|$)", re.I)


def accepts_gzip(accepted: str) -> bool:
    """Return whether `Accept-Encoding` names gzip, and not as what must not come (`q=0`)."""
    found = _GZIP.search(accepted)
    return found is not None and float(found["quality"] or 1) > 0


def gzipped(content: bytes) -> bytes:
    """Return the content compressed; the same content always gives the same bytes."""
    return gzip.compress(content, LEVEL, mtime=0)


def compressed(response: Response) -> Response:
    """Compress an answer if that helps, and the client can read it."""
    content = response.get_data()
    if len(content) < SHORTEST:
        return response
    response.vary.add("Accept-Encoding")
    if accepts_gzip(request.headers.get("Accept-Encoding", "")):
        response.set_data(gzipped(content))
        response.headers["Content-Encoding"] = "gzip"
    return response
