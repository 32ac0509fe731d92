from dataclasses import replace
from pathlib import Path

import pytest

from slapos.node.promise.conclusion import Circumstances, outcome_of_executable, outcome_of_plugin
from slapos.node.promise.execution import Outcome
from slapos.node.promise.history import History, LogLine, Run
from slapos.node.promise.process import Ended, Ending
from slapos.node.promise.result import Mode, PromiseResult
from slapos.node.promise.state_file import Schedule
from tests.fakes import NOON

OK = PromiseResult(
    title="a", failed=False, message="fine", date=NOON, execution_time=0, kind="Anomaly Result"
)
ENDED: Ended[None] = Ended(None, Ending.BY_ITSELF, 0, b"", "", 0.1)
OUT_OF_TIME = replace(ENDED, ending=Ending.OUT_OF_TIME, status=-9)


def given(mode: Mode = "test", previous: PromiseResult | None = None) -> Circumstances:
    return Circumstances(mode, 20.0, NOON.timestamp(), lambda: previous)


def test_a_plugin_says_its_outcome_itself() -> None:
    outcome = Outcome(
        kind="Test Result",
        failed=True,
        message="down",
        lines=(LogLine(1.0, "ERROR", "down"),),
        schedule=Schedule(periodicity=3.0),
    )
    ended = replace(ENDED, answer=outcome.to_json().encode())
    assert outcome_of_plugin(ended, given()) == outcome


@pytest.mark.parametrize("answer", [b"", b"{}", b"garbage", b"[1]", b'{"kind": 1, "lines": [[]]}'])
def test_a_plugin_that_says_nothing_fails_the_test(answer: bytes) -> None:
    ended = replace(ENDED, status=-11, answer=answer, output="stack smashed")
    outcome = outcome_of_plugin(ended, given())
    assert outcome.failed
    assert outcome.message.startswith("Error: No output returned by the promise")
    assert "SIGSEGV" in outcome.message
    assert "stack smashed" in outcome.message
    assert not outcome.may_bang


def test_a_time_out_fails_the_test() -> None:
    outcome = outcome_of_plugin(OUT_OF_TIME, given())
    assert (outcome.kind, outcome.failed) == ("Test Result", True)
    assert outcome.message == "Error: Promise timed out after 20 seconds"


def test_a_time_out_is_an_anomaly_only_the_second_time_in_a_row() -> None:
    first = outcome_of_plugin(OUT_OF_TIME, given("anomaly", OK))
    assert (first.kind, first.failed) == ("Anomaly Result", False)
    assert not outcome_of_plugin(OUT_OF_TIME, given("anomaly", None)).failed
    stored = replace(OK, message=first.message)
    assert outcome_of_plugin(OUT_OF_TIME, given("anomaly", stored)).failed
    assert outcome_of_plugin(OUT_OF_TIME, given("anomaly", replace(OK, failed=True))).failed


@pytest.mark.parametrize(("status", "failed"), [(0, False), (1, True), (126, True), (-15, True)])
def test_the_status_of_an_executable_decides(tmp_path: Path, status: int, failed: bool) -> None:
    history = History(tmp_path / "runs")
    ended = replace(ENDED, status=status, output="said")
    outcome = outcome_of_executable(ended, given(), history)
    assert (outcome.failed, outcome.message) == (failed, "said")


def test_an_executable_that_prints_nothing_still_has_a_message(tmp_path: Path) -> None:
    outcome = outcome_of_executable(replace(ENDED, status=-6), given(), History(tmp_path / "runs"))
    assert outcome.message == "it was ended by SIGABRT and printed nothing"


def test_the_anomaly_of_an_executable_takes_three_failures_and_never_bangs(tmp_path: Path) -> None:
    history = History(tmp_path / "runs")
    seen = []
    for status in (1, 1, 1, 0, 1):
        ended = replace(ENDED, status=status, output="said")
        outcome = outcome_of_executable(ended, given("anomaly"), history)
        history.append(Run(NOON.timestamp(), outcome.lines))
        seen.append(outcome.failed)
        assert not outcome.may_bang
        assert outcome.kind == "Test Result"
    assert seen == [False, False, True, False, False]
