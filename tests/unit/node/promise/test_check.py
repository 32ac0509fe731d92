import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from slapos.node.promise.check import (
    LAUNCHER_TITLE,
    RETRY,
    ProcessPromiseChecker,
    PromiseContext,
    PromiseResult,
    PromiseRun,
    promises_version,
)
from slapos.node.promise.result import to_document
from slapos.system.runner import CommandFailed, CommandTimedOut
from tests.fakes import NOON, FakeClock, FakeRunner

END = json.dumps({"event": "end"})


def context(directory: Path, **changes: Any) -> PromiseContext:
    values: dict[str, Any] = {
        "partition_directory": directory,
        "partition": "slappart0",
        "node": "COMP-1",
        "master_url": "http://127.0.0.1:5000",
        "python": "/opt/release/bin/python",
        "user": None,
    }
    return PromiseContext(**{**values, **changes})


def result(title: str = "port", *, failed: bool = False, message: str = "fine") -> PromiseResult:
    return PromiseResult(
        title=title,
        failed=failed,
        message=message,
        date=datetime(2026, 3, 1, 12, tzinfo=UTC),
        execution_time=0.25,
        kind="Test Result",
    )


def line(given: PromiseResult) -> str:
    return json.dumps({"event": "result", **to_document(given, name="port.py", path="/p/port.py")})


@pytest.fixture
def partition(tmp_path: Path) -> Path:
    plugins = tmp_path / "etc" / "plugin"
    plugins.mkdir(parents=True)
    (plugins / "port.py").touch()
    return tmp_path


def check(
    runner: FakeRunner, directory: Path, *, force: bool = False, **changes: Any
) -> list[PromiseResult]:
    return checked(runner, directory, force=force, **changes).results


def checked(
    runner: FakeRunner, directory: Path, *, force: bool = False, **changes: Any
) -> PromiseRun:
    checker = ProcessPromiseChecker(runner, {"PATH": "/bin"}, FakeClock())
    return checker.check(context(directory, **changes), mode="test", force=force)


def test_a_partition_without_promises_costs_no_process(tmp_path: Path) -> None:
    runner = FakeRunner()
    assert check(runner, tmp_path) == []
    assert runner.ran == []


def test_results_are_what_the_launcher_says(partition: Path) -> None:
    (partition / "etc" / "plugin" / "b.py").touch()
    given = [result("a"), result("b", failed=True, message="down")]
    runner = FakeRunner(output="\n".join(["promise a: ok", *map(line, given), END]))
    assert check(runner, partition) == given


def test_the_launcher_is_told_everything_and_sees_a_clean_environment(partition: Path) -> None:
    runner = FakeRunner(output=END)
    check(runner, partition, force=True, timeout=7.0, key_file=Path("/k"))
    [ran] = runner.ran
    assert ran.argv[:4] == ("/opt/release/bin/python", "-P", "-m", "slapos.node.promise.launcher")
    assert {"--partition=slappart0", "--timeout=7.0", "--key-file=/k", "--force"} <= set(ran.argv)
    assert not [word for word in ran.argv if word.startswith("--certificate-file")]
    assert ran.cwd == partition
    assert ran.environment["HOME"] == str(partition)
    assert set(ran.environment) <= {"PATH", "HOME", "USER", "LOGNAME"}
    assert ran.timeout is not None
    assert ran.timeout > 7.0


@pytest.mark.parametrize(
    ("runner", "told"),
    [
        (FakeRunner(error=CommandFailed("python could not be started")), "could not be started"),
        (FakeRunner(error=CommandTimedOut("it did not end within 80 s")), "80 s"),
        (FakeRunner(output="Traceback\nNo module named slapos", status=1), "No module named"),
        (FakeRunner(output="{garbage"), "{garbage"),
        (FakeRunner(output='{"event": "result", "title": "x"}'), "no promise result"),
        (FakeRunner(output="[" * 10_000), "status 0"),
        (FakeRunner(output='{"a":' * 10_000), "status 0"),
    ],
)
def test_a_launcher_that_goes_wrong_is_a_failed_result(
    partition: Path, runner: FakeRunner, told: str
) -> None:
    [found] = check(runner, partition)
    assert (found.title, found.failed, found.date) == (LAUNCHER_TITLE, True, NOON)
    assert told in found.message
    assert "slappart0" in found.message


def test_what_came_before_a_crash_is_kept(partition: Path) -> None:
    runner = FakeRunner(output=line(result("a")), status=-9)
    assert [(r.title, r.failed) for r in check(runner, partition)] == [
        ("a", False),
        (LAUNCHER_TITLE, True),
    ]


def test_what_happens_after_the_last_result_changes_none(partition: Path) -> None:
    output = "\n".join([line(result("port")), END])
    runner = FakeRunner(output=output, error=CommandTimedOut("the master took its time"))
    assert check(runner, partition) == [result("port")]


def test_a_launcher_cannot_have_more_results_than_promises(partition: Path) -> None:
    runner = FakeRunner(output="\n".join([line(result("port"))] * 5 + [END]))
    assert check(runner, partition) == [result("port")]


def test_a_partition_that_cannot_be_read_is_a_failed_result(tmp_path: Path) -> None:
    (tmp_path / "etc").symlink_to("etc")
    [found] = check(FakeRunner(), tmp_path)
    assert found.failed


# When to check again.


@pytest.mark.parametrize(
    ("end", "next_due"),
    [
        ({"next_due": 1_800_000_000.5}, 1_800_000_000.5),
        ({"next_due": None}, float("inf")),
        ({}, NOON.timestamp() + RETRY),  # a launcher of an older package
        ({"next_due": "soon"}, NOON.timestamp() + RETRY),
    ],
)
def test_the_launcher_says_when_it_is_needed_again(
    partition: Path, end: dict[str, Any], next_due: float
) -> None:
    runner = FakeRunner(output=json.dumps({"event": "end", **end}))
    assert checked(runner, partition).next_due == next_due


def test_a_partition_without_promises_is_never_due(tmp_path: Path) -> None:
    assert checked(FakeRunner(), tmp_path).next_due == float("inf")


def test_promises_that_could_not_be_checked_are_due_again_soon(partition: Path) -> None:
    run = checked(FakeRunner(status=1), partition)
    assert run.next_due == NOON.timestamp() + RETRY


def test_nothing_is_due_until_then_unless_the_clock_was_put_back(partition: Path) -> None:
    now = NOON.timestamp()
    run = PromiseRun([], checked=now, next_due=now + 60, version="a")
    assert not run.is_due(now)
    assert not run.is_due(now + 59)
    assert run.is_due(now + 60)
    assert run.is_due(now + 86_400)
    assert run.is_due(now - 86_400)
    assert not run.is_due(now, "a")
    assert run.is_due(now, "b")


def test_a_new_promise_changes_the_version(partition: Path) -> None:
    before = promises_version(partition)
    assert checked(FakeRunner(output=END), partition).version == before
    (partition / "etc" / "plugin" / "c.py").touch()
    assert promises_version(partition) != before
    assert promises_version(partition / "nowhere") == promises_version(partition / "no folder")
