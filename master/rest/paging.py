"""Lists page by page: each page goes on behind the last row of the one before, by an index."""

import base64
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar

from flask import request
from pydantic import Field
from sqlalchemy import Select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from slapos.master.rest.model import Answer, Query
from slapos.protocol.errors import InvalidFields

Item = TypeVar("Item")

DEFAULT_LIMIT = 100
LARGEST_LIMIT = 500
CHECK_LENGTH = 8


class PagedQuery(Query):
    """What is asked of a list; lists with filters derive theirs from it."""

    limit: Annotated[
        int, Field(ge=1, le=LARGEST_LIMIT, description="How many are answered at most.")
    ] = DEFAULT_LIMIT
    after: Annotated[
        str | None,
        Field(max_length=2000, description="The `next` of the page before; without it, the first."),
    ] = None


class Paged(Answer):
    """What is answered as a page; the list itself is added by name."""

    next: Annotated[
        str | None, Field(description="What `after` is for the next page; null on the last one.")
    ] = None


@dataclass(frozen=True)
class Page(Generic[Item]):
    """A part of a list, and where the rest of it begins."""

    items: Sequence[Item]
    next: str | None

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)


def page(
    session: Session,
    statement: Select[Item],
    keys: Sequence[InstrumentedAttribute[Any]],
    query: PagedQuery,
    *,
    descending: bool = False,
) -> Page[Item]:
    """Return the part of a list that is asked for.

    `keys` are columns in whose order the list is; together they are unique, none is null, and an
    index has them. Raises InvalidFields for an `after` that is none of this list.
    """
    check = _check(keys, descending)
    if query.after is not None:
        last = _read_cursor(query.after, keys, check)
        behind, reached = tuple_(*keys), tuple_(*last)
        statement = statement.where(behind < reached if descending else behind > reached)
    order = [key.desc() if descending else key.asc() for key in keys]
    extended = statement.add_columns(*keys).order_by(*order).limit(query.limit + 1)
    rows = session.execute(extended).unique().all()
    shown = rows[: query.limit]
    further = None
    if len(rows) > query.limit:
        further = _cursor(shown[-1][-len(keys) :], check)
    return Page([row[0] for row in shown], further)


def _check(keys: Sequence[InstrumentedAttribute[Any]], descending: bool) -> str:
    """Return by what a cursor is known to be one of this list."""
    named = [request.path, *(str(key) for key in keys), str(descending)]
    return hashlib.sha256("\n".join(named).encode()).hexdigest()[:CHECK_LENGTH]


def _cursor(values: Sequence[Any], check: str) -> str:
    told = [value.isoformat() if isinstance(value, datetime) else value for value in values]
    return base64.urlsafe_b64encode(json.dumps([check, *told]).encode()).decode().rstrip("=")


def _read_cursor(
    cursor: str, keys: Sequence[InstrumentedAttribute[Any]], check: str
) -> Sequence[Any]:
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        told, *values = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        if told != check or len(values) != len(keys):
            raise ValueError("it is of another list")
        return [_typed(value, key) for value, key in zip(values, keys, strict=True)]
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidFields(
            "`after` is not what a page of this list gave as `next`; begin with the first page",
            {"after": "it is no `next` of this list"},
        ) from error


def _typed(value: object, key: InstrumentedAttribute[Any]) -> object:
    wanted = key.type.python_type
    if wanted is datetime and isinstance(value, str):
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise ValueError("a time needs its zone")
        return moment
    if type(value) is not wanted or (isinstance(value, str) and "\0" in value):
        raise ValueError("it is of another type")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError("it is too large")
    return value
