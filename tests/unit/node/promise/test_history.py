from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from slapos.node.promise.history import REMEMBERED_RUNS, History, LogLine, Run, judge

NOW = 1_000_000.0
good = Run(NOW, (LogLine(NOW, "INFO", "fine"),))
bad = Run(NOW, (LogLine(NOW, "ERROR", "down"),))
silent = Run(NOW)
RUNS = {"g": good, "b": bad, "s": silent}


def problem(pattern: str, *, result_count: int = 1, failure_amount: int = 1) -> bool:
    """Judge runs written as letters, the newest first."""
    return judge(
        [RUNS[letter] for letter in pattern],
        now=NOW,
        result_count=result_count,
        failure_amount=failure_amount,
    ).problem


def test_by_default_the_last_run_counts() -> None:
    assert problem("bg")
    assert not problem("gb")


def test_failures_need_not_be_in_a_row() -> None:
    assert problem("bgb", result_count=3, failure_amount=2)
    assert not problem("bgg", result_count=3, failure_amount=2)


def test_three_of_three() -> None:
    assert not problem("bb", result_count=3, failure_amount=3)
    assert not problem("bbgb", result_count=3, failure_amount=3)
    assert problem("bbbg", result_count=3, failure_amount=3)


def test_a_run_that_logged_nothing_is_fine() -> None:
    assert not problem("sbb", result_count=3, failure_amount=1)


def test_without_a_run_there_is_no_problem() -> None:
    assert judge([], now=NOW).message == "it has not run yet"


def test_old_runs_do_not_count() -> None:
    old = Run(NOW - 61, bad.lines)
    options = {"result_count": 2, "failure_amount": 2}
    assert judge([bad, old], now=NOW, **options).problem
    assert not judge([bad, old], now=NOW, latest_minute=1, **options).problem
    assert judge([bad, old], now=NOW, latest_minute=2, **options).problem


def test_the_message_is_what_the_last_run_logged() -> None:
    lines = (LogLine(NOW, "INFO", "looking"), LogLine(NOW, "CRITICAL", "gone"))
    verdict = judge([Run(NOW, lines), good], now=NOW)
    assert (verdict.problem, verdict.message) == (True, "looking\ngone")


patterns = st.text(alphabet="gbs", max_size=12)
amounts = st.integers(1, 12)


@given(patterns, amounts, amounts)
def test_the_rule_said_in_one_line(pattern: str, result_count: int, failure_amount: int) -> None:
    newest = pattern[:result_count]
    expected = newest.startswith("b") and newest.count("b") >= failure_amount
    found = problem(pattern, result_count=result_count, failure_amount=failure_amount)
    assert found == expected


@given(patterns, amounts, amounts)
def test_asking_for_more_failures_never_makes_a_problem(
    pattern: str, result_count: int, failure_amount: int
) -> None:
    if problem(pattern, result_count=result_count, failure_amount=failure_amount + 1):
        assert problem(pattern, result_count=result_count, failure_amount=failure_amount)


lines = st.builds(
    LogLine,
    date=st.floats(0, 2e9),
    level=st.sampled_from(["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]),
    message=st.text(max_size=50),
)
runs = st.builds(Run, date=st.floats(0, 2e9), lines=st.lists(lines, max_size=3).map(tuple))


@given(st.lists(runs, max_size=8))
def test_what_is_appended_is_read_back(tmp_path_factory: object, given_runs: list[Run]) -> None:
    path: Path = tmp_path_factory.mktemp("history") / "port.runs.jsonl"  # type: ignore[attr-defined]
    for run in given_runs:
        History(path).append(run)
    assert History(path).newest_first() == given_runs[::-1]


def test_the_file_does_not_grow_for_ever(tmp_path: Path) -> None:
    history = History(tmp_path / "port.runs.jsonl")
    for number in range(3 * REMEMBERED_RUNS):
        history.append(Run(float(number), (LogLine(1.0, "INFO", "well " * 200),)))
    kept = [run.date for run in history.newest_first()]
    assert REMEMBERED_RUNS <= len(kept) <= 2 * REMEMBERED_RUNS
    assert kept == [float(3 * REMEMBERED_RUNS - 1 - number) for number in range(len(kept))]


def test_a_line_torn_by_a_crash_costs_that_run_only(tmp_path: Path) -> None:
    path = tmp_path / "port.runs.jsonl"
    History(path).append(good)
    path.write_bytes(path.read_bytes() + b'{"date": 12, "li')
    History(path).append(bad)
    assert History(path).newest_first() == [bad, good]
