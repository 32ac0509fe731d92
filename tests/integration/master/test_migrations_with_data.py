"""Migrations keep what is in a database, from whatever version it is."""

import pytest
from sqlalchemy import MetaData

from slapos.master import migrations
from slapos.master.database import open_database
from slapos.master.settings import database_url
from tests.integration.master.every_table import columns_of, fill


@pytest.mark.parametrize("revision", migrations.REVISIONS[:-1])
def test_all_that_was_in_an_older_database_is_in_the_new_one(
    revision: str, empty_database_uri: str
) -> None:
    """Every column that is still there has the values that it had, in every row."""
    database = open_database(database_url(empty_database_uri))
    migrations.upgrade(database, revision)
    before = MetaData()
    with database.engine.begin() as connection:
        before.reflect(connection)
        before.remove(before.tables["alembic_version"])
        fill(connection, before)
        wanted = {name: columns_of(connection, table) for name, table in before.tables.items()}
    migrations.upgrade(database)
    after = MetaData()
    with database.engine.connect() as connection:
        after.reflect(connection)
        found = {name: columns_of(connection, after.tables[name]) for name in wanted}
    for name, columns in wanted.items():
        kept = {column: columns[column] for column in columns.keys() & found[name].keys()}
        assert {column: found[name][column] for column in kept} == kept, name
    database.close()
