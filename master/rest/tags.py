"""Entity tags: a client that has an answer does not get it again, and changes what it has seen.

Tags are weak: they name a state of a resource, not bytes, which differ with the compression. That
is also what If-Match is about here, so it compares weakly (RFC 9110 would have it fail always).
"""

import hashlib

from flask import Response, request
from werkzeug.datastructures import ETags

from slapos.master.rest.model import Answer
from slapos.protocol.errors import PreconditionFailed

TAG_LENGTH = 32


def tag_of(content: bytes, revision: int | None = None) -> str:
    """Return the tag of an answer: its revision when there is one, else a hash of it."""
    if revision is not None:
        return f"r{revision}"
    return hashlib.sha256(content).hexdigest()[:TAG_LENGTH]


def tagged(response: Response, tag: str) -> Response:
    """Give an answer its tag; 304 without content to who has it already."""
    response.set_etag(tag, weak=True)
    if _names(request.if_none_match, tag):
        response.status_code = 304
        response.set_data(b"")
        del response.headers["Content-Type"]
        response.headers.pop("Content-Encoding", None)
    return response


def check_match(present: Answer | int) -> None:
    """Raise PreconditionFailed when a change is asked of another state than the present one.

    `present` is what a GET would answer now, or its revision. Lock what is to be changed first.
    """
    if not request.if_match:
        return
    revision = present if isinstance(present, int) else None
    content = b"" if isinstance(present, int) else present.model_dump_json().encode()
    if not _names(request.if_match, tag_of(content, revision)):
        raise PreconditionFailed(
            "it has been changed since you read it: read it again, and decide again"
        )


def _names(named: ETags, tag: str) -> bool:
    return named.star_tag or named.contains_weak(tag)
