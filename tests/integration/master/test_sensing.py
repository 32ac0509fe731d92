"""A task that is sensed is marked as due together with the change that calls for it."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from slapos.master.database import Database
from slapos.master.tasks.model import AT_ONCE, TaskMark
from slapos.master.tasks.task import sense
from tests.fakes import NOON


def marks(session: Session) -> list[tuple[str, str]]:
    found = session.scalars(select(TaskMark).order_by(TaskMark.id))
    return [(mark.name, mark.key) for mark in found]


def test_what_is_committed_is_marked(database: Database) -> None:
    with database.writing.begin() as session:
        sense(session, "allocate_instances", "SOFTINST-3")
        sense(session, "allocate_instances")
        sense(session, "forget_tokens", at=NOON)
    with database.reading() as session:
        assert marks(session) == [
            ("allocate_instances", "SOFTINST-3"),
            ("allocate_instances", ""),
            ("forget_tokens", ""),
        ]
        times = session.scalars(select(TaskMark.not_before).order_by(TaskMark.id)).all()
        assert times == [AT_ONCE, AT_ONCE, NOON]


def test_what_is_undone_is_not_marked(database: Database) -> None:
    with database.writing() as session:
        sense(session, "allocate_instances")
        session.rollback()
        nested = session.begin_nested()
        sense(session, "allocate_instances", "SOFTINST-3")
        nested.rollback()
        session.commit()
    with database.reading() as session:
        assert marks(session) == []
