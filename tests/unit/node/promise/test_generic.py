from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from slapos.node.promise.generic import (
    AnomalyResult,
    BaseResult,
    EmptyResult,
    GenericPromise,
    TestResult,
)
from slapos.node.promise.history import History, LogLine, Run
from slapos.node.promise.state_file import PromiseState
from tests.fakes import NOON, FakeClock


class Says(GenericPromise):
    """Logs what the option `says` has, at the level of the option `level`."""

    def sense(self) -> None:
        self.logger.log(self.getConfig("level", 20), self.getConfig("says", "fine"))


def promise(directory: Path, **options: Any) -> Says:
    config = {
        "name": "port.py",
        "path": str(directory / "etc/plugin/port.py"),
        "partition-folder": str(directory),
        **{key.replace("_", "-"): value for key, value in options.items()},
    }
    return Says(config, clock=FakeClock())


def remember(directory: Path, *levels: str) -> None:
    """Leave runs behind, the oldest first, a minute apart, the last a minute ago."""
    state = PromiseState(directory)
    state.load([])
    for index, level in enumerate(levels):
        date = NOON.timestamp() - 60 * (len(levels) - index)
        History(state.history_path("port")).append(
            Run(date, (LogLine(date, level, f"run {index}"),))
        )


def test_it_knows_what_it_was_given(tmp_path: Path) -> None:
    found = promise(tmp_path, log_folder=str(tmp_path / "log"), host="localhost")
    assert found.getTitle() == "port"
    assert found.getName() == "port.py"
    assert found.getPromiseFile() == str(tmp_path / "etc/plugin/port.py")
    assert found.getPartitionFolder() == str(tmp_path)
    assert found.getLogFolder() == str(tmp_path / "log")
    assert found.getLogFile() == str(tmp_path / "log" / "port.log")
    assert found.getConfig("host") == "localhost"
    assert found.getConfig("port", 80) == 80
    found.setConfig("port", 81)
    assert found.getConfig("port", 80) == 81


@pytest.mark.parametrize("missing", ["name", "path", "partition-folder"])
def test_what_it_cannot_do_without_is_named(tmp_path: Path, missing: str) -> None:
    with pytest.raises(ValueError, match=missing):
        promise(tmp_path, **{missing: None})


def test_it_runs_every_two_minutes_unless_told_otherwise(tmp_path: Path) -> None:
    found = promise(tmp_path)
    assert found.getPeriodicity() == 2
    found.setPeriodicity(0.5)
    assert found.getPeriodicity() == 0.5
    assert promise(tmp_path, periodicity="7").getPeriodicity() == 7


@pytest.mark.parametrize("minute", [0, -1, float("nan"), float("inf"), "often"])
def test_a_periodicity_that_cannot_be_is_refused(tmp_path: Path, minute: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - for "often" the words are Python's
        promise(tmp_path).setPeriodicity(minute)


def test_a_test_and_an_anomaly_are_what_the_last_run_logged(tmp_path: Path) -> None:
    found = promise(tmp_path, level=40, says="down")
    found.sense()
    tested, anomaly = found.test(), found.anomaly()
    assert isinstance(tested, TestResult)
    assert isinstance(anomaly, AnomalyResult)
    for result in (tested, anomaly):
        assert (result.hasFailed(), result.message, result.date) == (True, "down", NOON)


def test_a_run_that_logs_nothing_is_fine_whatever_was_before(tmp_path: Path) -> None:
    remember(tmp_path, "ERROR")
    assert not promise(tmp_path).test().hasFailed()


def test_earlier_runs_count(tmp_path: Path) -> None:
    found = promise(tmp_path, level=40)
    found.sense()
    assert not found._anomaly(result_count=3, failure_amount=3).hasFailed()
    remember(tmp_path, "ERROR", "ERROR")
    assert found._anomaly(result_count=3, failure_amount=3).hasFailed()
    assert not found._anomaly(result_count=3, failure_amount=3, latest_minute=1).hasFailed()


def test_the_last_results_are_lists_of_what_was_logged(tmp_path: Path) -> None:
    remember(tmp_path, "INFO", "ERROR")
    found = promise(tmp_path)
    [[last]] = found.getLastPromiseResultList()
    assert (last["status"], last["message"]) == ("ERROR", "run 1")
    assert last["date"] == datetime(2026, 3, 1, 11, 59, tzinfo=UTC).astimezone().replace(
        tzinfo=None
    )
    found.sense()
    messages = [
        [line["message"] for line in run] for run in found.getLastPromiseResultList(result_count=5)
    ]
    assert messages == [["fine"], ["run 1"], ["run 0"]]
    assert len(found.getLastPromiseResultList(latest_minute=1.5, result_count=5)) == 2
    only = found.getLastPromiseResultList(result_count=5, only_failure=True)
    assert [len(run) for run in only] == [0, 1, 0]


def test_bang_on_failure_is_a_word(tmp_path: Path) -> None:
    for word in ("true", "False", "no", "1", ""):
        promise(tmp_path, bang_on_failure=word)
    with pytest.raises(ValueError, match="sometimes"):
        promise(tmp_path, bang_on_failure="sometimes")


def test_results_have_the_kinds_of_the_field() -> None:
    kinds = [kind().type() for kind in (BaseResult, TestResult, AnomalyResult, EmptyResult)]
    assert kinds == ["Base Result", "Test Result", "Anomaly Result", "Empty Result"]
    assert TestResult(problem=True, message="x" * 6000).message == "..." + "x" * 5000
