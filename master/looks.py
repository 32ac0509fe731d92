"""Single statements that are asked all the time, past the layers that cost more than the answer.

SQLAlchemy makes the statement and keeps the connections; the driver is asked by itself. What is
looked for are numbers and texts only, as nobody converts them here.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Any

from sqlalchemy import Engine, Integer, Select
from sqlalchemy.exc import SQLAlchemyError

from slapos.protocol.errors import SlapOSError

Row = tuple[Any, ...]


class LookFailed(SlapOSError):
    """The database could not be looked into."""

    code = "database_failed"


class Look:
    """A statement, ready to be asked of the database of an engine."""

    def __init__(self, engine: Engine, statement: Select[Any]) -> None:
        self._engine = engine
        self._failures = engine.dialect.loaded_dbapi.Error
        compiled = engine.dialect.statement_compiler(engine.dialect, statement)
        self.text = str(compiled)
        self._places = compiled.positiontup
        #: Values that the statement has of itself.
        self.fixed = {name: _plain(value) for name, value in compiled.params.items()}
        #: What makes a value of its text, of each column.
        self.kinds = [
            int if isinstance(c.type, Integer) else str for c in statement.selected_columns
        ]

    def first(self, sought: Mapping[str, str | int]) -> Row | None:
        """Return the first row, None without one; raises LookFailed."""
        values: Any = {**self.fixed, **sought}
        if self._places is not None:
            values = [values[name] for name in self._places]
        try:
            connection = self._engine.raw_connection()
        except (self._failures, SQLAlchemyError) as error:
            raise LookFailed(f"there is no connection to the database: {error}") from error
        try:
            cursor = connection.cursor()
            cursor.execute(self.text, values)
            found: Row | None = cursor.fetchone()
            cursor.close()
        except self._failures as error:
            connection.invalidate()
            raise LookFailed(f"the database does not answer: {error}") from error
        finally:
            connection.close()
        return found


def _plain(value: object) -> object:
    return value.value if isinstance(value, Enum) else value
