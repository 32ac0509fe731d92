from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slapos.node.promise.discover import PromiseFile
from slapos.node.promise.result import PromiseResult
from slapos.node.promise.state_file import PromiseState, Schedule, file_version
from tests.fakes import NOON

RESULT = PromiseResult(
    title="port", failed=True, message="down", date=NOON, execution_time=0.5, kind="Test Result"
)


@pytest.fixture
def state(tmp_path: Path) -> PromiseState:
    state = PromiseState(tmp_path)
    state.make_folders()
    return state


@pytest.fixture
def promise(tmp_path: Path) -> PromiseFile:
    path = tmp_path / "port.py"
    path.write_text("first")
    return PromiseFile("port", path, is_plugin=True)


def test_a_result_is_kept_where_monitors_look(
    state: PromiseState, promise: PromiseFile, tmp_path: Path
) -> None:
    state.save_result(promise, RESULT)
    assert state.load_result("port") == RESULT
    folder = tmp_path / ".slapgrid" / "promise" / "result"
    assert [path.name for path in folder.iterdir()] == ["port.status.json"]


def test_a_result_that_cannot_be_read_is_none(
    state: PromiseState, promise: PromiseFile, tmp_path: Path
) -> None:
    assert state.load_result("port") is None
    state.save_result(promise, RESULT)
    path = tmp_path / ".slapgrid" / "promise" / "result" / "port.status.json"
    path.write_text(path.read_text()[:-5])
    assert state.load_result("port") is None


def test_a_schedule_is_true_until_the_promise_is_changed(
    state: PromiseState, promise: PromiseFile
) -> None:
    schedule = Schedule(5.0, 12.0, is_tested=False, file_version=file_version(promise.path))
    state.save_schedule(promise, schedule)
    assert state.load_schedule(promise) == schedule
    promise.path.write_text("second, and longer")
    assert state.load_schedule(promise) == Schedule()


def test_what_is_no_more_is_forgotten(
    state: PromiseState, promise: PromiseFile, tmp_path: Path
) -> None:
    for title in ("port", "gone"):
        one = PromiseFile(title, promise.path, is_plugin=True)
        state.save_result(one, replace(RESULT, title=title))
        state.save_schedule(one, Schedule())
        state.history_path(title).touch()
        state.log_path(title).touch()
    state.forget_others({"port"})
    left = sorted(path.name for path in tmp_path.rglob("*") if path.name.startswith("gone"))
    assert left == ["gone.log"]
    assert state.load_result("port") == RESULT


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
    assert Schedule(periodicity, ran + periodicity * 60).is_due(ran - back)


def test_what_never_ran_is_due() -> None:
    assert Schedule().is_due(NOON.timestamp())
