import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from slapos.node.promise.check import (
    LAUNCHER_TITLE,
    ProcessPromiseChecker,
    PromiseContext,
    PromiseResult,
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
