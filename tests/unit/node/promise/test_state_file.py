import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slapos.node.promise.discover import PromiseFile
from slapos.node.promise.result import PromiseResult, from_document
from slapos.node.promise.state_file import (
    RESULT_LAG,
    SHIFT,
    PromiseState,
    Schedule,
    file_version,
    next_turn,
)
from tests.fakes import NOON

RESULT = PromiseResult(
    title="port", failed=True, message="down", date=NOON, execution_time=0.5, kind="Test Result"
)


@pytest.fixture
def promise(tmp_path: Path) -> PromiseFile:
    path = tmp_path / "port.py"
    path.write_text("first")
    return PromiseFile("port", path, is_plugin=True)


@pytest.fixture
def state(tmp_path: Path, promise: PromiseFile) -> PromiseState:
    return loaded(tmp_path, promise)


def loaded(directory: Path, *promises: PromiseFile) -> PromiseState:
    """Return the state as the next launcher finds it."""
    state = PromiseState(directory)
    state.load(promises)
    return state


def store(
    state: PromiseState, promise: PromiseFile, schedule: Schedule, result: PromiseResult
) -> None:
    state.keep(promise, schedule, result)
    state.publish(promise)
    state.save()


def later(seconds: float, **changes: Any) -> PromiseResult:
    return replace(RESULT, date=NOON + timedelta(seconds=seconds), **changes)


def result_files(directory: Path) -> Path:
    return directory / ".slapgrid" / "promise" / "result"


def state_file(directory: Path) -> Path:
    return directory / ".slapgrid" / "promise" / "state" / "promises.json"


def test_a_result_is_kept_where_monitors_look(
    state: PromiseState, promise: PromiseFile, tmp_path: Path
) -> None:
    store(state, promise, Schedule(), RESULT)
    [path] = result_files(tmp_path).iterdir()
    assert path.name == "port.status.json"
    assert from_document(json.loads(path.read_text())) == replace(RESULT, since=NOON)
    assert loaded(tmp_path, promise).result("port") == replace(RESULT, since=NOON)


def test_a_result_file_is_written_when_it_says_something_new_or_is_old(
    state: PromiseState, promise: PromiseFile, tmp_path: Path
) -> None:
    path = result_files(tmp_path) / "port.status.json"
    written = []
    for result in (
        RESULT,
        later(60),
        later(61, message="down still"),
        later(62, message="down still", failed=False),
        later(90, message="down still", failed=False),
        later(62 + RESULT_LAG, message="down still", failed=False),
        later(0, message="down still", failed=False),  # the clock was put back
    ):
        path.unlink(missing_ok=True)
        store(state, promise, Schedule(), result)
        written.append(path.exists())
        state = loaded(tmp_path, promise)
    assert written == [True, False, True, True, False, True, True]


def test_a_result_says_since_when_it_has_been_so(state: PromiseState, promise: PromiseFile) -> None:
    since = []
    for result in (
        RESULT,
        later(60, message="down still"),
        later(120, failed=False),
        later(180, failed=False),
        later(240),
    ):
        kept = state.keep(promise, Schedule(), result)
        assert kept.since is not None
        since.append((kept.since - NOON).total_seconds())
    assert since == [0, 0, 120, 120, 240]


def test_since_when_is_remembered(
    state: PromiseState, promise: PromiseFile, tmp_path: Path
) -> None:
    store(state, promise, Schedule(), RESULT)
    found = loaded(tmp_path, promise).keep(promise, Schedule(), later(86_400))
    assert found == replace(later(86_400), since=NOON)


BAD_SCHEDULE = '{"port": {"schedule": {"%s": %s}, "result": null, "told": 0}}'


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "\0\0\0",
        "[]",
        "3",
        "[" * 10_000,
        '{"port": 3}',
        '{"port": {}}',
        BAD_SCHEDULE % ("periodicity", '"soon"'),
        BAD_SCHEDULE % ("next_run_after", "null"),
        BAD_SCHEDULE % ("periodicity", "[]"),
        BAD_SCHEDULE % ("no_such", "1"),
    ],
)
def test_what_a_crash_left_of_the_state_is_not_known(
    state: PromiseState, promise: PromiseFile, tmp_path: Path, content: str
) -> None:
    state_file(tmp_path).write_text(content)
    found = loaded(tmp_path, promise)
    assert found.result("port") is None
    assert found.schedule(promise).is_due(NOON.timestamp())
    store(found, promise, Schedule(), RESULT)
    assert loaded(tmp_path, promise).result("port") == replace(RESULT, since=NOON)


def test_state_that_did_not_change_is_not_written(
    state: PromiseState, promise: PromiseFile, tmp_path: Path
) -> None:
    store(state, promise, Schedule(), RESULT)
    state_file(tmp_path).unlink()
    state.save()
    assert not state_file(tmp_path).exists()


def test_a_schedule_is_true_until_the_promise_is_changed(
    state: PromiseState, promise: PromiseFile, tmp_path: Path
) -> None:
    schedule = Schedule(5.0, 12.0, is_tested=False, file_version=file_version(promise.path))
    store(state, promise, schedule, RESULT)
    assert loaded(tmp_path, promise).schedule(promise) == schedule
    promise.path.write_text("second, and longer")
    assert loaded(tmp_path, promise).schedule(promise) == Schedule()


def test_what_is_no_more_is_forgotten(promise: PromiseFile, tmp_path: Path) -> None:
    gone = PromiseFile("gone", promise.path, is_plugin=True)
    state = loaded(tmp_path, promise, gone)
    for one in (promise, gone):
        store(state, one, Schedule(), replace(RESULT, title=one.title))
        Path(state.history_path(one.title)).touch()
        Path(state.log_path(one.title)).touch()
    found = loaded(tmp_path, promise)
    left = sorted(path.name for path in tmp_path.rglob("*") if path.name.startswith("gone"))
    assert left == ["gone.log"]
    assert found.result("port") == replace(RESULT, since=NOON)
    assert found.result("gone") is None
    assert Path(found.history_path("port")).exists()


def test_a_promise_that_went_away_has_no_version(tmp_path: Path) -> None:
    assert file_version(tmp_path / "gone.py") == ""


def test_who_takes_part() -> None:
    assert not Schedule(is_tested=False).takes_part("test")
    assert Schedule(is_tested=False).takes_part("anomaly")
    assert not Schedule(is_anomaly_detected=False).takes_part("anomaly")
    # Its author disabled both: running it tells so.
    assert Schedule(is_tested=False, is_anomaly_detected=False).takes_part("test")


minutes = st.floats(0.01, 10_000)
moments = st.floats(1e9, 2e9)


@given(moments, minutes, st.floats(0, 1e6))
def test_a_promise_is_due_when_its_period_is_over(
    ran: float, periodicity: float, later: float
) -> None:
    next_run = ran + periodicity * 60
    schedule = Schedule(periodicity, next_run)
    now = ran + later
    assert schedule.is_due(now) == (now >= next_run)


@given(moments, minutes, st.floats(1, 1e6))
def test_a_clock_put_back_delays_nothing(ran: float, periodicity: float, back: float) -> None:
    period = periodicity * 60
    assert Schedule(periodicity, ran + period).is_due(ran - back - period * SHIFT)


@given(moments, minutes, st.text())
def test_a_promise_has_its_turn_when_its_period_is_over_at_the_latest_a_tenth_later(
    ran: float, periodicity: float, partition: str
) -> None:
    period = periodicity * 60
    turn = next_turn(ran, periodicity, partition)
    assert period * SHIFT - 0.002 <= turn - ran <= period * (1 + SHIFT) + 0.002
    # From then on it is the period.
    assert next_turn(turn + 0.002, periodicity, partition) == pytest.approx(turn + period, abs=0.01)


def test_promises_of_one_partition_have_their_turn_together() -> None:
    now = NOON.timestamp()
    assert {next_turn(now + delay, 2, "slappart7") for delay in (0, 0.3, 1.7)} == {
        next_turn(now, 2, "slappart7")
    }
    # The longer period is a multiple of the shorter one.
    assert (next_turn(now, 4, "slappart7") - next_turn(now, 2, "slappart7")) % 120 == 0


def test_turns_of_a_thousand_partitions_are_spread_over_the_period() -> None:
    now = NOON.timestamp()
    turns = [next_turn(now, 1, f"slappart{number}") - now for number in range(1000)]
    in_each_sixth = [sum(6 + 10 * n <= turn < 16 + 10 * n for turn in turns) for n in range(6)]
    assert all(130 < count < 210 for count in in_each_sixth), in_each_sixth


def test_what_never_ran_is_due() -> None:
    assert Schedule().is_due(NOON.timestamp())
