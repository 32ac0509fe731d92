"""What is particular to runs in forks of a warm process."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from slapos.system.runner import CommandFailed, Result
from slapos.system.warm_runner import WarmRunner
from tests.fakes import FakeRunner
from tests.unit.system.runners import ENVIRONMENT, is_alive, program, run, warm_runner

PARENT = "print(os.getppid())"
#: Says its own process id and its parent's, and stays.
STAY = "print(os.getpid(), os.getppid(), flush=True)\ntime.sleep(600)"


@pytest.fixture
def cold() -> FakeRunner:
    return FakeRunner(output="cold")


@pytest.fixture
def runner(cold: FakeRunner) -> Iterator[WarmRunner]:
    warm = warm_runner(cold)
    yield warm
    warm.close()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Background:
    """A run in a thread of its own."""

    def __init__(self, runner: WarmRunner, path: Path, **options: object) -> None:
        self.lines: list[str] = []
        self.failure: CommandFailed | None = None
        self.result: Result | None = None
        self._thread = threading.Thread(target=self._work, args=(runner, path), kwargs=options)
        self._thread.start()

    def _work(self, runner: WarmRunner, path: Path, **options: object) -> None:
        try:
            self.result = run(runner, path, on_line=self.lines.append, **options)
        except CommandFailed as error:
            self.failure = error

    def ids(self) -> tuple[int, int]:
        """Return the process ids of the program and of the warm process."""
        until(lambda: self.lines)
        pid, parent = map(int, self.lines[0].split())
        return pid, parent

    def join(self) -> None:
        self._thread.join(15)
        assert not self._thread.is_alive()


def test_runs_have_one_warm_process_in_common(runner: WarmRunner, tmp_path: Path) -> None:
    path = program(tmp_path, PARENT)
    parents = {run(runner, path).output for _ in range(3)}
    assert len(parents) == 1
    assert parents != {str(os.getpid())}


@pytest.mark.parametrize(
    ("argv", "environment"),
    [
        (["other"], {}),
        ([sys.executable, "program.py"], {"PYTHONPATH": "/x"}),
        ([sys.executable, "program.py"], {"LANG": "C"}),
        ([sys.executable, "program.py"], {"LD_PRELOAD": "x.so"}),
        ([sys.executable, "program.py"], {"BIG": "x" * 40_000}),
        ([sys.executable, "program.py", "x" * 9_000], {}),
    ],
    ids=["unknown", "PYTHON", "locale", "loader", "environment", "arguments"],
)
def test_what_a_fork_cannot_do_is_run_cold(
    runner: WarmRunner, tmp_path: Path, argv: Sequence[str], environment: dict[str, str]
) -> None:
    result = runner.run(argv, cwd=tmp_path, environment=ENVIRONMENT | environment)
    assert result.output == "cold"


def test_a_killed_warm_process_fails_what_was_seen_of_and_the_next_run_has_another(
    runner: WarmRunner, cold: FakeRunner, tmp_path: Path
) -> None:
    background = Background(runner, program(tmp_path, STAY))
    pid, parent = background.ids()
    os.kill(parent, signal.SIGKILL)
    background.join()
    assert "was killed" in str(background.failure)
    assert not is_alive(pid)
    assert run(runner, program(tmp_path, PARENT)).output not in ("", str(parent))
    assert cold.ran == []


def test_a_run_of_which_nothing_was_seen_is_done_again_cold(
    runner: WarmRunner, cold: FakeRunner, tmp_path: Path
) -> None:
    body = "Path('ids').write_text(f'{os.getpid()} {os.getppid()}\\n')\ntime.sleep(600)"
    background = Background(runner, program(tmp_path, body))
    ids = tmp_path / "ids"
    until(lambda: ids.exists() and ids.read_text().endswith("\n"))
    pid, parent = map(int, ids.read_text().split())
    os.kill(parent, signal.SIGKILL)
    background.join()
    assert background.result == Result(0, "cold")
    assert not is_alive(pid)


def test_what_a_run_started_goes_with_it_when_the_warm_process_is_killed(
    runner: WarmRunner, tmp_path: Path
) -> None:
    body = "import subprocess\nchild = subprocess.Popen(['sleep', '600'])\n"
    body += "print(child.pid, os.getppid(), flush=True)\ntime.sleep(600)"
    background = Background(runner, program(tmp_path, body))
    child, parent = background.ids()
    os.kill(parent, signal.SIGKILL)
    background.join()
    until(lambda: not is_alive(child))


def test_a_warm_process_that_does_not_react_is_replaced(
    cold: FakeRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slapos.system.warm_runner.START_TIME", 1.0)
    runner = warm_runner(cold)
    path = program(tmp_path, PARENT)
    parent = int(run(runner, path).output)
    os.kill(parent, signal.SIGSTOP)
    assert run(runner, path).output not in ("cold", str(parent))
    assert not is_alive(parent)
    runner.close()


def test_what_was_installed_meanwhile_is_imported_by_a_new_one(
    cold: FakeRunner, tmp_path: Path
) -> None:
    site = tmp_path / "site-packages"
    site.mkdir()
    environment = {**ENVIRONMENT, "PYTHONPATH": str(site)}
    runner = warm_runner(cold, environment=environment)
    background = Background(runner, program(tmp_path, STAY), environment=environment)
    pid, parent = background.ids()
    (site / "new-1.dist-info").mkdir()
    path = program(tmp_path, PARENT)
    assert int(run(runner, path, environment=environment).output) != parent
    assert is_alive(pid)
    os.kill(pid, signal.SIGTERM)
    background.join()
    assert background.failure is not None
    assert background.failure.status == -signal.SIGTERM
    until(lambda: not is_alive(parent))
    runner.close()


def test_without_a_warm_process_all_is_run_cold_and_it_is_not_tried_each_time(
    cold: FakeRunner, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runner = warm_runner(cold, modules=["no_such_module"])
    path = program(tmp_path, PARENT)
    assert [run(runner, path).output for _ in range(2)] == ["cold", "cold"]
    assert "No module named 'no_such_module'" in caplog.text
    assert len([each for each in caplog.records if each.levelname == "WARNING"]) == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import threading\nthreading.Thread(target=threading.Event().wait).start()", "1 threads"),
        ("stream = open('/dev/zero')", "/dev/zero"),
    ],
)
def test_modules_that_a_fork_would_break_are_refused(
    cold: FakeRunner, caplog: pytest.LogCaptureFixture, tmp_path: Path, text: str, told: str
) -> None:
    (tmp_path / "unfit.py").write_text(text + "\n")
    environment = {**ENVIRONMENT, "PYTHONPATH": str(tmp_path)}
    runner = warm_runner(cold, modules=["unfit"], environment=environment)
    path = program(tmp_path, PARENT)
    assert run(runner, path, environment=environment).output == "cold"
    assert told in caplog.text


def test_a_warm_process_ends_with_the_one_that_started_it_and_so_do_its_forks(
    tmp_path: Path,
) -> None:
    body = "Path(sys.argv[1]).write_text(f'{os.getpid()} {os.getppid()}\\n')\ntime.sleep(600)"
    path = program(tmp_path, body)
    pid = os.fork()
    if pid == 0:
        try:
            run(warm_runner(), path, str(tmp_path / "ids"))
        finally:
            os._exit(1)
    ids = tmp_path / "ids"
    until(lambda: ids.exists() and ids.read_text().endswith("\n"))
    fork, parent = map(int, ids.read_text().split())
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    until(lambda: not is_alive(parent))
    until(lambda: not is_alive(fork))


def test_a_warm_process_that_is_to_end_leaves_time_to_its_forks(
    runner: WarmRunner, tmp_path: Path
) -> None:
    body = "print(os.getpid(), os.getppid(), flush=True)\n"
    body += "while not Path('go').exists(): time.sleep(0.01)\nreturn 7"
    background = Background(runner, program(tmp_path, body), check=False)
    _, parent = background.ids()
    os.kill(parent, signal.SIGTERM)
    assert run(runner, program(tmp_path, PARENT)).output != str(parent)
    (tmp_path / "go").touch()
    background.join()
    assert background.result is not None
    assert background.result.status == 7
    until(lambda: not is_alive(parent))


def test_forks_that_ended_are_not_left_over(runner: WarmRunner, tmp_path: Path) -> None:
    path = program(tmp_path, "print(os.getpid(), os.getppid())")
    pids = [run(runner, path).output.split()[0] for _ in range(3)]
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def test_a_warm_process_is_started_when_it_is_worth_it(cold: FakeRunner, tmp_path: Path) -> None:
    runner = warm_runner(cold, cold_first=2)
    path = program(tmp_path, PARENT)
    outputs = [run(runner, path).output for _ in range(4)]
    assert outputs[:2] == ["cold", "cold"]
    assert "cold" not in outputs[2:]
    runner.close()
