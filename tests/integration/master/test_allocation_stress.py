"""Real processes order the last partitions of one PostgreSQL at once."""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from slapos.master.app import create_app
from slapos.master.nodes.model import ComputeNode, ComputePartition, PartitionState
from slapos.master.provisioning.model import SoftwareInstance
from slapos.master.settings import Profile, Settings, database_url
from slapos.master.tasks.registry import TASKS
from slapos.master.tasks.runner import Runner
from slapos.master.tasks.worker import Doors, make_rows
from tests.database import Postgresql
from tests.integration.master import ordering_process
from tests.integration.master.catalogue import add_product, add_supply
from tests.integration.master.full import World, by_header

PROCESSES = 4
ORDERS = 15
PARTITIONS = 10
#: COMP-1 and COMP-3 have partitions for all, COMP-4 has capacity for less than it has partitions.
CAPACITY = 4
PLACES = 2 * PARTITIONS + CAPACITY


@pytest.fixture
def uri(postgresql: Postgresql) -> Iterator[str]:
    name = postgresql.migrated()
    yield postgresql.url(name)
    postgresql.give_back(name)


@pytest.fixture
def world(uri: str) -> Iterator[World]:
    settings = Settings(database_url=database_url(uri), profile=Profile.FULL)
    app = create_app(settings, authenticate=by_header)
    world = World(app, partitions=PARTITIONS)
    with world.session() as session:
        for number in (3, 4):
            world.node(session, number, project=1)
        bounded = session.scalars(select(ComputeNode).where(ComputeNode.reference == "COMP-4"))
        bounded.one().capacity = CAPACITY
        add_supply(session, add_product(session), ["COMP-1", "COMP-3", "COMP-4"])
        session.commit()
    yield world
    app.extensions["slapos"].database.close()


@pytest.fixture
def processes(world: World, uri: str) -> Iterator[list["subprocess.Popen[str]"]]:
    started = [
        subprocess.Popen(
            [sys.executable, "-m", ordering_process.__name__, uri, str(number), str(ORDERS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(PROCESSES)
    ]
    assert [_line(each) for each in started] == ["ready"] * PROCESSES
    yield started
    for each in started:
        each.kill()
        each.communicate(timeout=60)


def test_no_place_is_given_twice_and_who_gets_none_is_told_why(
    world: World, processes: list["subprocess.Popen[str]"]
) -> None:
    statuses = _go_on(processes)
    assert statuses == {"200": PLACES, "408": PROCESSES * ORDERS - PLACES}
    with world.session() as session:
        _check_places(session)
        reasons = Counter(
            session.scalars(
                select(SoftwareInstance.waiting_code).where(SoftwareInstance.waiting_key != "")
            )
        )
        assert sum(reasons.values()) == PROCESSES * ORDERS - PLACES
        assert reasons.keys() <= {"no_free_partition", "no_capacity"}
    runner = _runner(world)
    runner.start()  # what is freed is given away while it is being freed
    try:
        statuses = _go_on(processes)
        assert set(statuses) == {"200"}
        _until_all_is_taken(world)
    finally:
        runner.stop()
        while runner.is_working:
            time.sleep(0.01)
    with world.session() as session:
        _check_places(session)


def _line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def _go_on(processes: list["subprocess.Popen[str]"]) -> Counter[str]:
    for each in processes:
        assert each.stdin is not None
        each.stdin.write("go on\n")
        each.stdin.flush()
    found: Counter[str] = Counter()
    for each in processes:
        found.update(json.loads(_line(each)))
    return found


def _runner(world: World) -> Runner:
    parts = world.parts
    doors = Doors(
        database=parts.database,
        clock=parts.clock,
        identifiers=parts.identifiers,
        settings=parts.settings,
        policy=parts.policy,
    )
    make_rows(doors, TASKS)
    return Runner(doors, TASKS)


def _until_all_is_taken(world: World) -> None:
    deadline = time.monotonic() + 60
    while True:
        with world.session() as session:
            placed = session.scalar(_PLACED)
        if placed == PLACES:
            return
        assert time.monotonic() < deadline, placed
        time.sleep(0.05)


_PLACED = select(func.count(SoftwareInstance.partition_id))


def _check_places(session: Session) -> None:
    """Check that each busy partition holds one instance, and no node bears more than it may."""
    assert session.scalar(_PLACED) == PLACES
    held = session.scalars(
        select(SoftwareInstance.partition_id).where(SoftwareInstance.partition_id.is_not(None))
    ).all()
    busy = session.scalars(
        select(ComputePartition.id).where(ComputePartition.state == PartitionState.BUSY)
    ).all()
    assert sorted(str(each) for each in held) == sorted(str(each) for each in busy)
    on_bounded = (
        select(func.count())
        .select_from(SoftwareInstance)
        .join(ComputeNode)
        .where(ComputeNode.reference == "COMP-4")
    )
    assert session.scalar(on_bounded) == CAPACITY
