import os
import signal
import time
from pathlib import Path

import pytest

from slapos.system.runner import (
    CommandFailed,
    CommandTimedOut,
    ProcessLimits,
    SystemRunner,
    User,
)

ENVIRONMENT = {"PATH": os.environ["PATH"]}
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")


def run(*argv: str, cwd: Path, **options: object) -> str:
    result = SystemRunner(patience=0.2).run(argv, cwd=cwd, environment=ENVIRONMENT, **options)  # type: ignore[arg-type]
    return result.output


def test_output_comes_line_by_line_and_as_a_whole(tmp_path: Path) -> None:
    lines: list[str] = []
    output = run("sh", "-c", "echo one; echo two >&2", cwd=tmp_path, on_line=lines.append)
    assert lines == ["one", "two"]
    assert output == "one\ntwo"


def test_a_bad_ending_carries_status_and_output(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="status 3") as caught:
        run("sh", "-c", "echo because; exit 3", cwd=tmp_path)
    assert (caught.value.status, caught.value.output) == (3, "because")


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="no-such-program could not be started"):
        run("no-such-program", cwd=tmp_path)


def test_time_out_ends_the_program_and_what_it_started(tmp_path: Path) -> None:
    script = "trap '' TERM; (trap '' TERM; sleep 600) & echo $! > child; wait; sleep 600"
    with pytest.raises(CommandTimedOut, match=r"0\.3 s"):
        run("sh", "-c", script, cwd=tmp_path, timeout=0.3)
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 10
    while _alive(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _alive(child)


def test_a_daemon_that_keeps_the_output_open_does_not_hold_us(tmp_path: Path) -> None:
    started = time.monotonic()
    run("sh", "-c", "sleep 30 & echo $! > child", cwd=tmp_path)
    assert time.monotonic() - started < 15
    os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)


def test_only_the_given_environment_is_seen(tmp_path: Path) -> None:
    output = run("env", cwd=tmp_path)
    names = {line.split("=")[0] for line in output.splitlines()}
    assert names <= {"PATH", "PWD", "SHLVL", "_"}


@needs_root
def test_root_becomes_the_user_it_is_told(tmp_path: Path) -> None:
    assert run("id", "-u", cwd=Path("/"), user=User(65534, 65534)) == "65534"
    assert run("id", "-G", cwd=Path("/"), user=User(65534, 65534)) == "65534"


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_a_line_without_end_is_cut(tmp_path: Path) -> None:
    lines: list[str] = []
    run("sh", "-c", "head -c 2500000 /dev/zero", cwd=tmp_path, on_line=lines.append)
    assert [len(line) for line in lines] == [1_000_000, 1_000_000, 500_000]


def test_limits_are_set_before_the_program_begins(tmp_path: Path) -> None:
    procs = tmp_path / "cgroup.procs"
    limits = ProcessLimits(cgroup_procs=(procs,), open_files=64, processes=1000)
    script = f"echo $$; cat {procs}; ulimit -n; ulimit -Hn; bash -c 'ulimit -u'; cat"
    own, entered, *numbers = run("sh", "-c", script, cwd=tmp_path, limits=limits).splitlines()
    assert own == entered
    assert numbers == ["64", "64", "1000"]


def test_a_program_whose_limits_cannot_be_set_does_not_run(tmp_path: Path) -> None:
    limits = ProcessLimits(cgroup_procs=(tmp_path / "no" / "cgroup.procs",))
    with pytest.raises(CommandFailed, match="limits of touch could not be set") as caught:
        run("touch", "ran", cwd=tmp_path, limits=limits)
    assert "cgroup.procs" in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_with_limits_too_endings_and_missing_programs_are_told_apart(tmp_path: Path) -> None:
    limits = ProcessLimits(open_files=64)
    with pytest.raises(CommandFailed, match="no-such-program could not be started"):
        run("no-such-program", cwd=tmp_path, limits=limits)
    with pytest.raises(CommandFailed, match="sh ended with status 127"):
        run("sh", "-c", "no-such-program", cwd=tmp_path, limits=limits)


def test_a_program_with_limits_is_ended_when_its_time_is_up(tmp_path: Path) -> None:
    with pytest.raises(CommandTimedOut):
        run("sleep", "600", cwd=tmp_path, timeout=0.2, limits=ProcessLimits(open_files=64))


@needs_root
def test_a_user_that_may_not_enter_a_cgroup_is_put_there(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    procs = tmp_path / "cgroup.procs"
    procs.touch(mode=0o600)
    limits = ProcessLimits(cgroup_procs=(procs,))
    output = run("id", "-u", cwd=Path("/"), user=User(65534, 65534), limits=limits)
    assert output == "65534"
    assert int(procs.read_text()) > 0
