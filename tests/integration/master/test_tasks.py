"""Tasks: what is marked is done once, with its mark; what fails waits, and stops nobody else."""

from collections.abc import Callable, Mapping
from datetime import timedelta

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from slapos.master.database import Database
from slapos.master.identity.caller import SYSTEM, caller_of
from slapos.master.nodes import service as nodes
from slapos.master.nodes.model import TakenReport
from slapos.master.nodes.tasks import REMEMBERED, forget_taken_reports
from slapos.master.provisioning.policy import LocalPolicy
from slapos.master.settings import Settings
from slapos.master.tasks.model import TaskMark, TaskState
from slapos.master.tasks.registry import TASKS
from slapos.master.tasks.runner import POLL, Runner
from slapos.master.tasks.task import Apply, Done, Task, Turn, sense
from slapos.master.tasks.tasks import mend_marks
from slapos.master.tasks.worker import Doors, make_rows
from tests.fakes import FakeClock, FakeIdentifiers

DAY = timedelta(days=1)
Run = Callable[[Turn], Done]


@pytest.fixture
def doors(database: Database, clock: FakeClock, settings: Settings) -> Doors:
    return Doors(
        database=database,
        clock=clock,
        identifiers=FakeIdentifiers(),
        settings=settings,
        policy=LocalPolicy("computer"),
    )


def task(name: str, run: Run, every: timedelta | None = None, batch: int = 100) -> Task:
    return Task(name=name, summary="", run=run, every=every, batch=batch)


def runner_of(doors: Doors, *tasks: Task) -> Runner:
    named = {each.name: each for each in tasks}
    make_rows(doors, named)
    return Runner(doors, named)


def sensed(doors: Doors, name: str, *keys: str) -> None:
    with doors.database.writing.begin() as session:
        for key in keys or ("",):
            sense(session, name, key)


def settle(runner: Runner) -> float:
    """Have all done that is due; return how long to wait for more."""
    for _ in range(100):
        wait = runner.round()
        if wait:
            return wait
    raise AssertionError("it never comes to an end")


def state(doors: Doors, name: str) -> TaskState:
    with doors.database.reading() as session:
        return session.scalars(select(TaskState).where(TaskState.name == name)).one()


def waiting(doors: Doors) -> list[str]:
    with doors.database.reading() as session:
        return list(session.scalars(select(TaskMark.key).order_by(TaskMark.id)))


class Seen:
    """A task's `run` that only remembers what it was called for, and fails for some keys."""

    def __init__(self, *bad: str | None) -> None:
        self.turns: list[tuple[str, ...] | None] = []
        self.bad = set(bad)

    def __call__(self, turn: Turn) -> Done:
        assert caller_of(turn.session) is SYSTEM
        keys = None if turn.keys is None else tuple(turn.keys)
        self.turns.append(keys)
        if self.bad & set((None,) if keys is None else keys):
            raise ValueError("this one is bad")
        return Done(count=1 if keys is None else len(keys))


def test_what_is_sensed_is_done_once(doors: Doors) -> None:
    seen = Seen()
    runner = runner_of(doors, task("paint", seen))
    assert settle(runner) == POLL
    assert seen.turns == []
    sensed(doors, "paint", "a", "b", "a")
    sensed(doors, "paint")
    assert settle(runner) == POLL
    assert seen.turns == [("a", "b"), None]
    assert waiting(doors) == []
    sensed(doors, "paint", "a")
    settle(runner)
    assert seen.turns[2:] == [("a",)]
    found = state(doors, "paint")
    assert (found.done, found.total, found.failures) == (1, 4, 0)


def test_what_is_marked_meanwhile_calls_for_another_run(doors: Doors) -> None:
    runs = []

    def run(turn: Turn) -> Done:
        runs.append(turn.keys)
        if len(runs) == 1:
            sense(turn.session, "paint")
            sense(turn.session, "paint", "a")
        return Done()

    runner = runner_of(doors, task("paint", run))
    sensed(doors, "paint")
    settle(runner)
    assert runs == [None, ["a"], None]


def test_everything_is_looked_at_now_and_then(doors: Doors, clock: FakeClock) -> None:
    seen = Seen()
    runner = runner_of(doors, task("paint", seen, DAY))
    clock.advance(DAY.total_seconds())
    settle(runner)
    settle(runner)
    assert seen.turns == [None]
    clock.advance(DAY.total_seconds() - 2)
    assert settle(runner) == 2
    clock.advance(2)
    settle(runner)
    assert seen.turns == [None, None]


def test_many_keys_come_in_batches(doors: Doors) -> None:
    seen = Seen()
    runner = runner_of(doors, task("paint", seen, batch=2))
    sensed(doors, "paint", *"abcde")
    settle(runner)
    assert seen.turns == [("a", "b"), ("c", "d"), ("e",)]


def test_everything_comes_in_pieces(doors: Doors, clock: FakeClock) -> None:
    """A new mark while it is on the way has it begin anew, after it has come to the end."""
    pieces = []

    def run(turn: Turn) -> Done:
        pieces.append(turn.resume)
        if len(pieces) == 2:
            sense(turn.session, "paint")
        number = int(turn.resume or 0) + 1
        return Done(count=10, resume=str(number) if number < 3 else "")

    runner = runner_of(doors, task("paint", run))
    sensed(doors, "paint")
    settle(runner)
    assert pieces == ["", "1", "2", "", "1", "2"]
    assert state(doors, "paint").done == 30
    assert state(doors, "paint").total == 60


def test_one_bad_key_stops_no_other(doors: Doors, clock: FakeClock) -> None:
    seen, other = Seen("c"), Seen()
    runner = runner_of(doors, task("paint", seen), task("sand", other))
    sensed(doors, "paint", *"abcd")
    sensed(doors, "sand", "x")
    settle(runner)
    assert other.turns == [("x",)]
    assert seen.turns == [("a", "b", "c", "d"), ("a",), ("b",), ("c",), ("d",)]
    assert waiting(doors) == ["c"]
    found = state(doors, "paint")
    assert found.error == "ValueError: this one is bad"
    assert found.failed_at == clock.now()
    clock.advance(5)
    settle(runner)
    assert seen.turns[5:] == [("c",)]
    clock.advance(5)
    settle(runner)
    assert seen.turns[6:] == []
    seen.bad.clear()
    clock.advance(5)
    settle(runner)
    assert seen.turns[6:] == [("c",)]
    assert waiting(doors) == []


def test_what_fails_for_everything_backs_off(doors: Doors, clock: FakeClock) -> None:
    seen = Seen(None)
    runner = runner_of(doors, task("paint", seen, DAY))
    sensed(doors, "paint")
    for count, wait in enumerate((5, 10, 20, 40), 1):
        settle(runner)
        assert len(seen.turns) == count
        assert state(doors, "paint").failures == count
        clock.advance(wait - 1)
        settle(runner)
        assert len(seen.turns) == count
        clock.advance(1)
    seen.bad.clear()
    settle(runner)
    assert state(doors, "paint").failures == 0
    assert waiting(doors) == []


def test_what_a_failing_task_changed_is_undone(doors: Doors) -> None:
    def run(turn: Turn) -> Done:
        nodes.ensure_node(turn.session, turn.clock, "half-made")
        raise ValueError("no")

    runner = runner_of(doors, task("paint", run))
    sensed(doors, "paint", "a")
    settle(runner)
    with doors.database.reading() as session:
        assert nodes.nodes(session) == []


def test_a_clock_that_was_wrong_keeps_nothing_from_being_done(
    doors: Doors, clock: FakeClock
) -> None:
    seen = Seen()
    runner = runner_of(doors, task("paint", seen, DAY))
    clock.advance(400 * DAY.total_seconds())
    settle(runner)
    clock.advance(-400 * DAY.total_seconds())
    settle(runner)
    assert seen.turns == [None, None]
    settle(runner)
    assert seen.turns == [None, None]


def test_what_failed_while_a_clock_was_ahead_does_not_wait_for_that(
    doors: Doors, clock: FakeClock
) -> None:
    seen = Seen("a")
    runner = runner_of(doors, task("paint", seen), task("mend", mend_marks))
    clock.advance(400 * DAY.total_seconds())
    sensed(doors, "paint", "a")
    settle(runner)
    seen.bad.clear()
    clock.advance(-400 * DAY.total_seconds())
    settle(runner)
    assert waiting(doors) == ["a"]
    sensed(doors, "mend")
    settle(runner)
    assert waiting(doors) == []


def test_a_mark_may_be_for_later(doors: Doors, clock: FakeClock) -> None:
    seen = Seen()
    runner = runner_of(doors, task("paint", seen))
    with doors.database.writing.begin() as session:
        sense(session, "paint", "a", at=clock.now() + timedelta(seconds=3))
    assert settle(runner) == 3
    clock.advance(3)
    settle(runner)
    assert seen.turns == [("a",)]


class Network:
    """A task that asks somebody else between two transactions."""

    def __init__(self, doors: Doors) -> None:
        self.doors = doors
        self.log: list[str] = []
        self.is_broken = False

    def __call__(self, turn: Turn) -> Done:
        keys = list(turn.keys or ())

        def elsewhere() -> Apply:
            self.log.append(f"asked for {keys} while {waiting(self.doors)} wait")
            if self.is_broken:
                raise OSError("the network is down")
            return apply

        def apply(session: Session) -> int:
            nodes.ensure_node(session, turn.clock, "found")
            return 1

        return Done(elsewhere=elsewhere)


def test_what_takes_the_network_is_done_between_two_transactions(doors: Doors) -> None:
    run = Network(doors)
    runner = runner_of(doors, task("ask", run))
    sensed(doors, "ask", "a")
    settle(runner)
    assert run.log == ["asked for ['a'] while ['a'] wait"]
    assert waiting(doors) == []
    with doors.database.reading() as session:
        assert [node.reference for node in nodes.nodes(session)] == ["found"]
    assert state(doors, "ask").done == 1


def test_what_the_network_fails_at_is_tried_again(doors: Doors, clock: FakeClock) -> None:
    run = Network(doors)
    run.is_broken = True
    runner = runner_of(doors, task("ask", run))
    sensed(doors, "ask", "a", "b")
    settle(runner)
    assert len(run.log) == 1
    assert waiting(doors) == ["a", "b"]
    assert state(doors, "ask").error == "OSError: the network is down"
    run.is_broken = False
    clock.advance(5)
    settle(runner)
    assert waiting(doors) == []


def test_somebody_who_dies_while_asking_is_stood_in_for(doors: Doors, clock: FakeClock) -> None:
    asked = []

    def run(turn: Turn) -> Done:
        def elsewhere() -> Apply:
            asked.append(turn.keys)
            if len(asked) == 1:
                raise SystemExit  # stands for SIGKILL: nothing more is written
            return lambda _session: 1

        return Done(elsewhere=elsewhere)

    runner = runner_of(doors, task("ask", run))
    sensed(doors, "ask", "a")
    with pytest.raises(SystemExit):
        settle(runner)
    assert settle(runner) > 0
    assert len(asked) == 1
    clock.advance(120)
    settle(runner)
    assert len(asked) == 2
    assert waiting(doors) == []


def test_a_task_that_another_master_does_is_left_to_it(doors: Doors, database_uri: str) -> None:
    if not database_uri.startswith("postgresql"):
        pytest.skip("SQLite has one writer at a time, for whom the others wait")
    seen = Seen()
    runner = runner_of(doors, task("paint", seen))
    sensed(doors, "paint", "a")
    with doors.database.writing() as other:
        other.execute(text("SELECT * FROM tasks FOR UPDATE"))
        assert 0 < runner.round() < 1
        assert seen.turns == []
    settle(runner)
    assert seen.turns == [("a",)]


def test_each_task_has_a_name_of_its_own_and_says_what_it_is_for() -> None:
    found: Mapping[str, Task] = TASKS
    assert found
    for name, each in found.items():
        assert name == each.name
        assert len(name) <= 60
        assert each.summary


def test_old_reports_are_forgotten(doors: Doors, clock: FakeClock) -> None:
    with doors.database.writing.begin() as session:
        for name in ("computer", "silent", "other"):
            nodes.ensure_node(session, clock, name)
        for node_id, age in ((1, 0), (1, 91), (3, 89), (3, 92), (3, 93)):
            taken_at = clock.now() - timedelta(days=age)
            row = {"node_id": node_id, "report_id": f"{age:032}", "taken_at": taken_at}
            session.add(TakenReport(**row))
    assert timedelta(days=90) == REMEMBERED
    runner = runner_of(doors, task("forget", forget_taken_reports))
    sensed(doors, "forget")
    settle(runner)
    assert state(doors, "forget").done == 3
    with doors.database.reading() as session:
        assert session.scalar(select(func.count()).select_from(TakenReport)) == 2
