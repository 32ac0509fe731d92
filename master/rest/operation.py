"""The decorator by which a view becomes an operation of REST v1."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any

from flask import Response, request
from flask.typing import ResponseReturnValue

from slapos.master.compression import compressed
from slapos.master.http import READS
from slapos.master.rest.idempotency import HEADER, once
from slapos.master.rest.model import Answer, Body, Query, read_body, read_query
from slapos.master.rest.tags import tag_of, tagged
from slapos.protocol.errors import (
    InvalidFields,
    InvalidRequest,
    PreconditionFailed,
    SlapOSError,
    UnsupportedContent,
)

Declared = Callable[..., ResponseReturnValue]

OPERATION = "slapos_operation"
JSON = "application/json"
#: Bytes of a body, unless an operation says more.
LARGEST_BODY = 1024 * 1024


@dataclass(frozen=True)
class Described:
    """Content that the view reads or makes itself: its type, and its JSON Schema if it is JSON."""

    content_type: str = JSON
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Operation:
    """What a view takes and answers."""

    summary: str
    body: type[Body] | Described | None
    query: type[Query] | None
    answer: type[Answer] | Described | None
    status: int
    errors: tuple[type[SlapOSError], ...]
    matches: bool
    largest_body: int


@dataclass(frozen=True)
class Reply:
    """An answer with more than its content: a revision for its tag, where the new thing is."""

    content: Answer | Mapping[str, Any]
    revision: int | None = None
    location: str | None = None


def operation(
    *,
    summary: str,
    answer: type[Answer] | Described | None,
    body: type[Body] | Described | None = None,
    query: type[Query] | None = None,
    status: int = 200,
    errors: tuple[type[SlapOSError], ...] = (),
    matches: bool = False,
    largest_body: int = LARGEST_BODY,
) -> Callable[[Callable[..., Any]], Declared]:
    """Declare a view, below the decorator that gives its path.

    It gets what was asked, checked, as its arguments `body` and `query`, and returns its answer as
    that model or as a mapping of its fields (a Reply around it when there is more to say), None
    for one without content, or a response of its own making. `errors` are those beside a wrong
    body or query. `matches` says that the view calls `check_match`.
    """
    declared = Operation(
        summary=summary,
        body=body,
        query=query,
        answer=answer,
        status=204 if answer is None else status,
        errors=(*errors, PreconditionFailed) if matches else errors,
        matches=matches,
        largest_body=largest_body,
    )

    def declare(view: Callable[..., Any]) -> Declared:
        @wraps(view)
        def perform(**arguments: Any) -> ResponseReturnValue:
            asked = arguments | _read(declared)
            changes = request.method == "POST" and not getattr(perform, READS, False)
            if changes and HEADER in request.headers:
                return once(lambda: _respond(declared, view(**asked)))
            return _respond(declared, view(**asked))

        setattr(perform, OPERATION, declared)
        return perform

    return declare


def operation_of(view: Callable[..., Any]) -> Operation | None:
    """Return what a view has been declared to be, None when it has not."""
    found = getattr(view, OPERATION, None)
    return found if isinstance(found, Operation) else None


def _read(declared: Operation) -> dict[str, Any]:
    """Return what was asked, by the name of the view's argument."""
    asked: dict[str, Any] = {}
    request.max_content_length = declared.largest_body
    arguments = {name[:200]: request.args.getlist(name) for name in request.args}
    if declared.query is not None:
        asked["query"] = read_query(declared.query, arguments)
    elif arguments:
        reasons = dict.fromkeys(arguments, "there is no such field")
        raise InvalidFields("nothing can be asked after the question mark here", reasons)
    if request.if_match and not declared.matches:
        raise InvalidRequest("this is done whatever the present state: leave If-Match out")
    if isinstance(declared.body, type):
        # A page of another site cannot send JSON without being asked for permission.
        if request.mimetype != JSON:
            raise UnsupportedContent(f"the body must be JSON: Content-Type: {JSON}")
        asked["body"] = read_body(declared.body, request.get_data())
    return asked


def _respond(declared: Operation, told: Any) -> Response:
    """Return the HTTP answer for what a view has returned."""
    if isinstance(told, Response):
        return told
    if told is None:
        assert declared.answer is None, "the operation declares an answer, and the view gave none"
        return Response(status=declared.status)
    reply = told if isinstance(told, Reply) else Reply(told)
    if isinstance(declared.answer, type):
        # What is declared is what comes: the document that clients go by is made of it.
        content = declared.answer.model_validate(reply.content).model_dump_json().encode()
    else:
        content = json.dumps(reply.content).encode()
    response = Response(content, status=declared.status, content_type=JSON)
    if reply.location is not None:
        response.location = reply.location
    if request.method in ("GET", "HEAD"):
        response.headers["Cache-Control"] = "private, no-cache"
        tag = tag_of(content, reply.revision)
        return tagged(compressed(response), tag)
    if reply.revision is not None:
        response.set_etag(tag_of(content, reply.revision), weak=True)
    return response
