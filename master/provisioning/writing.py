"""Writing down what is ordered: a new instance, with its tree if it is the root of one.

It takes one statement, two on SQLite; the unit of work of the object mapper takes several times as
long. Who follows the session's changes is told (`database.tell_made`), and then the objects are the
session's, as if it had read them.
"""

from functools import cache
from typing import Any

from sqlalchemy import (
    Insert,
    Integer,
    Row,
    String,
    Table,
    bindparam,
    exists,
    insert,
    literal_column,
    select,
)
from sqlalchemy.orm import Session, make_transient_to_detached

from slapos.master.catalog.model import SoftwareInstallation
from slapos.master.database import Base, tell_made
from slapos.master.provisioning.model import InstanceTree, SoftwareInstance
from slapos.protocol.states import InstallationState

_TREES = Base.metadata.tables[InstanceTree.__tablename__]
_INSTANCES = Base.metadata.tables[SoftwareInstance.__tablename__]
#: Relations of an instance, and the keys that stand for them.
_KEYS = {
    "node": "node_id",
    "partition": "partition_id",
    "host": "host_id",
    "requester": "requester_id",
}
#: What the names of a tree's values begin with where they are beside those of its root.
_OF_TREE = "tree_"

#: It is looked for once the partition is taken: who removes a release locks the node's partitions.
HAS_RELEASE = (
    exists()
    .where(
        SoftwareInstallation.node_id == literal_column(str(_INSTANCES.c.node_id), Integer),
        SoftwareInstallation.url == literal_column(str(_INSTANCES.c.software_url), String),
        SoftwareInstallation.requested_state == InstallationState.AVAILABLE,
    )
    .label("has_release")
)
INSERT_TREE = insert(_TREES).returning(_TREES.c.id)
INSERT_INSTANCE = insert(_INSTANCES).returning(_INSTANCES.c.id, _INSTANCES.c.tree_id, HAS_RELEASE)


def write(session: Session, instance: SoftwareInstance) -> bool:
    """Write a new instance, placed or not, and its tree if that is new.

    Return whether its release is wanted on its node.
    """
    tree, is_new = instance.tree, not instance.tree.id
    for relation, key in _KEYS.items():
        related = vars(instance).get(relation)
        if related is not None:
            setattr(instance, key, related.id)
    instance.revision = 1  # else the mapper counts it
    made: list[Base] = [instance]
    if is_new:
        made.insert(0, tree)
    row = _insert(session, tree if is_new else None, instance)
    instance.id, instance.tree_id, has_release = row
    tree.id = instance.tree_id
    for each in made:
        make_transient_to_detached(each)
        session.add(each)
    tell_made(session, made)
    return bool(has_release)


def _insert(
    session: Session, tree: InstanceTree | None, instance: SoftwareInstance
) -> Row[int, int, bool]:
    connection, values = session.connection(), _values(instance, _INSTANCES)
    if tree is None:
        values["tree_id"] = instance.tree.id
    else:
        of_tree = _values(tree, _TREES)
        if connection.dialect.name == "postgresql":
            told = {f"{_OF_TREE}{name}": value for name, value in of_tree.items()}
            return connection.execute(_insert_both(), values | told).one()
        values["tree_id"] = connection.execute(INSERT_TREE, of_tree).scalar_one()
    return connection.execute(INSERT_INSTANCE, values).one()


@cache
def _insert_both() -> Insert:
    """Return the statement that writes a tree and its root (PostgreSQL)."""
    of_tree = {
        column: bindparam(f"{_OF_TREE}{column.name}", type_=column.type)
        for column in _TREES.c
        if not column.primary_key
    }
    tree = insert(_TREES).values(of_tree).returning(_TREES.c.id).cte("tree")
    columns = [each for each in _INSTANCES.c if each.name not in ("id", "tree_id")]
    values = [bindparam(each.name, type_=each.type) for each in columns]
    return (
        insert(_INSTANCES)
        .from_select(["tree_id", *columns], select(tree.c.id, *values), include_defaults=False)
        .returning(_INSTANCES.c.id, _INSTANCES.c.tree_id, HAS_RELEASE)
    )


@cache
def _defaults(table: Table) -> dict[str, Any]:
    """Return what is written where nothing is said; the key is the database's to give."""
    return {
        column.name: getattr(column.default, "arg", None)
        for column in table.columns
        if not column.primary_key
    }


def _values(thing: Base, table: Table) -> dict[str, Any]:
    """Return the values of a new row, all of which the object has then."""
    known, row = vars(thing), _defaults(table).copy()
    for name, default in row.items():
        if name in known:
            row[name] = known[name]
        else:
            setattr(thing, name, default)
    return row
