"""Migrations keep what is in a database, from whatever version it is."""

import pytest
from sqlalchemy import MetaData, insert, select

from slapos.master import migrations
from slapos.master.database import open_database
from slapos.master.settings import database_url
from tests.fakes import NOON
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


def test_what_was_ordered_under_one_title_as_two_trees_is_told_apart(
    empty_database_uri: str,
) -> None:
    database = open_database(database_url(empty_database_uri))
    migrations.upgrade(database, "0017")
    tables = MetaData()
    kinds = (("HOSTSUBS-1", False), ("HOSTSUBS-2", True), (None, False), (None, True))
    with database.engine.begin() as connection:
        tables.reflect(connection)
        trees, instances = tables.tables["instance_trees"], tables.tables["software_instances"]
        for number, (reference, shared) in enumerate(kinds, start=1):
            title = "web" if reference else "local"
            same = {"id": number, "title": title, "shared": shared, "created_at": NOON}
            connection.execute(
                insert(trees).values(project_id=1, owner_id=1, reference=reference, **same)
            )
            connection.execute(
                insert(instances).values(
                    reference=f"SOFTINST-{number}",
                    tree_id=number,
                    is_root=True,
                    software_url="x",
                    software_type="x",
                    requested_state="started",
                    parameters={},
                    connection={},
                    filters={},
                    changed_at=NOON,
                    error="",
                    revision=1,
                    **same,
                )
            )
    migrations.upgrade(database)
    with database.engine.connect() as connection:
        for table in (trees, instances):
            titles = connection.scalars(select(table.c.title).order_by(table.c.id)).all()
            assert titles == ["web", "web HOSTSUBS-2", "local", "local"]
    database.close()
