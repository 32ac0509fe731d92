"""Rows in every table that there is, whatever it is for: what is to be kept must be kept of all."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from sqlalchemy import Column, Connection, MetaData, Table, insert, select, types, update

from tests.fakes import NOON

ROWS = 3


def fill(connection: Connection, metadata: MetaData) -> None:
    """Put some rows into every table of a schema, with what is awkward to store."""
    filled: set[str] = set()
    for table in _in_order(metadata):
        for number in range(1, ROWS + 1):
            row = {c.name: _value(c, number, filled | {table.name}) for c in table.columns}
            connection.execute(insert(table).values(row))
        filled.add(table.name)
    for table in metadata.tables.values():
        _refer_to_later_tables(connection, table)


def rows_of(connection: Connection, table: Table) -> list[tuple[Any, ...]]:
    """Return the rows of a table in an order that is the same everywhere."""
    return sorted((tuple(row) for row in connection.execute(select(table))), key=repr)


def columns_of(connection: Connection, table: Table) -> dict[str, list[Any]]:
    """Return the values of each column, in an order that is the same everywhere."""
    return {
        column.name: sorted(connection.execute(select(column)).scalars(), key=repr)
        for column in table.columns
    }


def _in_order(metadata: MetaData) -> Iterator[Table]:
    """Yield tables: first those that the others need."""
    left = dict(sorted(metadata.tables.items()))
    while left:
        for name, table in list(left.items()):
            needed = {
                key.column.table.name
                for column in table.columns
                if not column.nullable
                for key in column.foreign_keys
            }
            if not (needed - {name}) & left.keys():
                yield left.pop(name)


def _value(column: Column[Any], number: int, filled: set[str]) -> Any:
    for key in column.foreign_keys:
        is_later = key.column.table.name not in filled or key.column.table is column.table
        if is_later and column.nullable:
            return None
        return _value(key.column, number, filled)
    return _plain_value(column, number)


def _plain_value(column: Column[Any], number: int) -> Any:
    kind = column.type
    if isinstance(kind, types.Boolean):
        return number % 2 == 0
    if isinstance(kind, types.Integer):
        return (2**40 if isinstance(kind, types.BigInteger) else 100) + number
    if isinstance(kind, types.String):
        text = f"{number}é\\\t\"'\n{column.name}"
        return text[: kind.length] if kind.length else text * 3
    if isinstance(kind, types.JSON):
        return {"number": number, "text": "é\n", "none": None, "list": [1.5, True]}
    if isinstance(kind, types.LargeBinary):
        return bytes([0, 255, 10, number])
    return NOON + timedelta(seconds=number, microseconds=number * 111)


def _refer_to_later_tables(connection: Connection, table: Table) -> None:
    """Fill in what refers to rows that came later: also to a row behind it in the same table."""
    (key, *more) = table.primary_key.columns
    for column in table.columns:
        for foreign in column.foreign_keys:
            if column.nullable and not more:
                later = {column.name: _value(foreign.column, ROWS, set())}
                first = update(table).where(key == _value(key, 1, set()), column.is_(None))
                connection.execute(first.values(later))
