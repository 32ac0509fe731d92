"""What a Runner does, whether it starts programs or forks a process that has them imported."""

import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from slapos.system.runner import (
    CommandFailed,
    CommandTimedOut,
    ProcessLimits,
    Runner,
    SystemRunner,
    User,
)
from tests.fakes import FakeRunner
from tests.unit.system.runners import ENVIRONMENT, is_alive, program, run, warm_runner

NOBODY = User(65534, 65534, (65534, 65533))
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")


@pytest.fixture(params=["cold", "warm"], scope="module")
def runner(request: pytest.FixtureRequest) -> Iterator[Runner]:
    if request.param == "cold":
        yield SystemRunner(patience=0.2)
        return
    warm = warm_runner(cold=FakeRunner(output="this was to be tested warm"))
    yield warm
    warm.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user may enter."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def shell(runner: Runner, folder: Path, script: str, **options: object) -> str:
    return run(runner, program(folder), "sh", "-c", script, **options).output


def test_output_comes_line_by_line_and_as_a_whole(runner: Runner, folder: Path) -> None:
    lines: list[str] = []
    output = shell(runner, folder, "echo one; echo two >&2", on_line=lines.append)
    assert lines == ["one", "two"]
    assert output == "one\ntwo"


def test_what_python_prints_comes_in_full(runner: Runner, folder: Path) -> None:
    path = program(folder, "print('out')\nsys.stderr.write('err')")
    assert sorted(run(runner, path).output.replace("err", "err\n").split()) == ["err", "out"]


def test_a_bad_ending_carries_status_and_output(runner: Runner, folder: Path) -> None:
    with pytest.raises(CommandFailed, match="status 3") as caught:
        shell(runner, folder, "echo because; exit 3")
    assert (caught.value.status, caught.value.output) == (3, "because")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("return 3", 3),
        ("return None", 0),
        ("return 256 + 7", 7),
        ("return 'why'", 1),
        ("sys.exit(4)", 4),
        ("sys.exit()", 0),
        ("raise RuntimeError('why')", 1),
        ("os.kill(os.getpid(), 9)", -9),
        ("os._exit(5)", 5),
        ("import atexit; atexit.register(lambda: print('why')); return 6", 6),
    ],
)
def test_the_exit_status_is_what_python_makes_of_it(
    runner: Runner, folder: Path, body: str, status: int
) -> None:
    result = run(runner, program(folder, body), check=False)
    assert result.status == status
    assert ("why" in result.output) is ("why" in body)


def test_a_traceback_is_the_programs_own(runner: Runner, folder: Path) -> None:
    output = run(runner, program(folder, "1 / 0"), check=False).output
    assert "ZeroDivisionError" in output
    assert "warm_process" not in output


def test_threads_of_a_program_come_to_their_end(runner: Runner, folder: Path) -> None:
    body = "import threading\nthreading.Timer(0.1, lambda: print('late')).start()"
    assert run(runner, program(folder, body)).output == "late"


def test_a_folder_that_is_not_there_is_named(runner: Runner, folder: Path) -> None:
    with pytest.raises(CommandFailed, match=r"could not be started in /no/such: .*No such file"):
        run(runner, program(folder), "true", cwd=Path("/no/such"))


def test_time_out_ends_the_program_and_what_it_started(runner: Runner, folder: Path) -> None:
    script = "trap '' TERM; (trap '' TERM; sleep 600) & echo $! > child; wait; sleep 600"
    with pytest.raises(CommandTimedOut, match=r"0\.3 s"):
        shell(runner, folder, script, timeout=0.3)
    child = int((folder / "child").read_text())
    until_ended(child)


def test_a_daemon_that_keeps_the_output_open_does_not_hold_us(runner: Runner, folder: Path) -> None:
    started = time.monotonic()
    shell(runner, folder, "sleep 30 & echo $! > child")
    assert time.monotonic() - started < 15
    os.kill(int((folder / "child").read_text()), signal.SIGKILL)


def test_only_the_given_environment_is_seen(runner: Runner, folder: Path) -> None:
    output = shell(runner, folder, "env", environment={**ENVIRONMENT, "GIVEN": "ä b"})
    seen = dict(line.split("=", 1) for line in output.splitlines())
    assert seen["GIVEN"] == "ä b"
    assert seen.keys() - {"PWD", "SHLVL", "_", "OLDPWD"} == {"PATH", "GIVEN", "LC_CTYPE"}


def test_the_machine_shows_what_is_run_and_with_what(runner: Runner, folder: Path) -> None:
    body = "for name in ('cmdline', 'environ'): print(Path(f'/proc/self/{name}').read_text())"
    path = program(folder, body)
    output = run(runner, path, "a b", environment={**ENVIRONMENT, "MARK": "x"}).output
    cmdline, environ = (line.rstrip("\0").split("\0") for line in output.splitlines())
    assert cmdline[1:] == [str(path), "a b"]
    assert sorted(environ) == sorted(["MARK=x", *map("=".join, ENVIRONMENT.items())])


def test_a_program_finds_itself_as_when_it_is_started(runner: Runner, folder: Path) -> None:
    body = (
        "import __main__\n"
        "print(sys.argv, sys.orig_argv[1:], sys.path[0], __main__.__file__, os.getcwd())\n"
        "print(os.getsid(0) == os.getpid(), sorted(os.listdir('/proc/self/fd'))[:3])\n"
        "print(repr(sys.stdin.read()), [len(os.listdir(f'/proc/self/{x}')) for x in ('fd','task')])"
    )
    path = program(folder, body)
    assert run(runner, path, "a").output.splitlines() == [
        f"{[str(path), 'a']} {[str(path), 'a']} {folder} {path} {folder}",
        "True ['0', '1', '2']",
        "'' [4, 1]",
    ]


def test_signals_are_as_a_new_program_has_them(runner: Runner, folder: Path) -> None:
    body = (
        "import signal\nprint([signal.getsignal(n) in (signal.SIG_DFL, signal.default_int_handler)"
        " for n in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT)])"
    )
    assert run(runner, program(folder, body)).output == "[True, True, True]"


def test_chance_is_different_each_time(runner: Runner, folder: Path) -> None:
    body = "import random, uuid, ssl, tempfile\nprint(random.random(), uuid.uuid4(), "
    body += "ssl.RAND_bytes(8).hex(), next(tempfile._get_candidate_names()))"
    path = program(folder, body)
    printed = [run(runner, path).output.split() for _ in range(3)]
    for values in zip(*printed, strict=True):
        assert len({*values}) == 3


@needs_root
def test_root_becomes_the_user_it_is_told(runner: Runner, folder: Path) -> None:
    script = "id -u; id -g; id -G; umask"
    output = shell(runner, folder, script, cwd=Path("/"), user=NOBODY)
    uid, gid, groups, umask = output.split("\n")
    assert (uid, gid, {*groups.split()}, umask) == ("65534", "65534", {"65534", "65533"}, "0027")


@needs_root
def test_nobody_gets_back_what_root_could(runner: Runner, folder: Path) -> None:
    body = (
        "try: os.setresuid(0, 0, 0)\nexcept PermissionError: print('no')\n"
        "print(os.getresuid(), os.getresgid())\n"
        "print([x for x in Path('/proc/self/status').read_text().splitlines() if 'CapEff' in x])\n"
        "print(os.listdir('/proc/self/fd'), Path('/proc/self/environ').stat().st_uid)\n"
        "try: os.listdir(f'/proc/{os.getppid()}/fd')\nexcept PermissionError: print('no')"
    )
    output = run(runner, program(folder, body), user=NOBODY).output.splitlines()
    assert output == [
        "no",
        "(65534, 65534, 65534) (65534, 65534, 65534)",
        "['CapEff:\\t0000000000000000']",
        "['0', '1', '2', '3'] 65534",
        "no",
    ]


def test_a_line_without_end_is_cut(runner: Runner, folder: Path) -> None:
    lines: list[str] = []
    shell(runner, folder, "head -c 2500000 /dev/zero", on_line=lines.append)
    assert [len(line) for line in lines] == [1_000_000, 1_000_000, 500_000]


def test_a_program_that_prints_without_end_is_ended_in_time(runner: Runner, folder: Path) -> None:
    with pytest.raises(CommandTimedOut) as caught:
        shell(runner, folder, "echo $$ > pid; exec yes", timeout=0.5)
    assert len(caught.value.output) <= 200_001
    until_ended(int((folder / "pid").read_text()))


def test_many_threads_run_at_the_same_time(runner: Runner, folder: Path) -> None:
    path = program(folder, "print(sys.argv[1])\nreturn int(sys.argv[1])")
    results: dict[int, tuple[int, str]] = {}

    def work(number: int) -> None:
        result = run(runner, path, str(number), check=False)
        results[number] = (result.status, result.output)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: (number, str(number)) for number in range(12)}


def test_limits_are_set_before_the_program_begins(runner: Runner, folder: Path) -> None:
    procs = folder / "cgroup.procs"
    limits = ProcessLimits(cgroup_procs=(procs,), open_files=64, processes=1000)
    script = f"echo $$; cat {procs}; ulimit -n; ulimit -Hn; bash -c 'ulimit -u'; cat"
    own, entered, *numbers = shell(runner, folder, script, limits=limits).splitlines()
    assert own == entered
    assert numbers == ["64", "64", "1000"]


def test_a_program_whose_limits_cannot_be_set_does_not_run(runner: Runner, folder: Path) -> None:
    limits = ProcessLimits(cgroup_procs=(folder / "no" / "cgroup.procs",))
    with pytest.raises(CommandFailed, match=r"limits of .* could not be set") as caught:
        shell(runner, folder, "touch ran", limits=limits)
    assert "cgroup.procs" in str(caught.value)
    assert not (folder / "ran").exists()


def test_a_program_with_limits_is_ended_when_its_time_is_up(runner: Runner, folder: Path) -> None:
    with pytest.raises(CommandTimedOut):
        shell(runner, folder, "sleep 600", timeout=0.2, limits=ProcessLimits(open_files=64))


@needs_root
def test_a_user_that_may_not_enter_a_cgroup_is_put_there(runner: Runner, folder: Path) -> None:
    procs = folder / "cgroup.procs"
    procs.touch(mode=0o600)
    limits = ProcessLimits(cgroup_procs=(procs,))
    assert shell(runner, folder, "id -u", cwd=Path("/"), user=NOBODY, limits=limits) == "65534"
    assert int(procs.read_text()) > 0


def until_ended(pid: int) -> None:
    deadline = time.monotonic() + 10
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_alive(pid)


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="no-such-program could not be started"):
        SystemRunner().run(["no-such-program"], cwd=tmp_path, environment=ENVIRONMENT)


def test_with_limits_too_endings_and_missing_programs_are_told_apart(tmp_path: Path) -> None:
    def cold(*argv: str) -> None:
        limits = ProcessLimits(open_files=64)
        SystemRunner().run(argv, cwd=tmp_path, environment=ENVIRONMENT, limits=limits)

    with pytest.raises(CommandFailed, match="no-such-program could not be started"):
        cold("no-such-program")
    with pytest.raises(CommandFailed, match="sh ended with status 127"):
        cold("sh", "-c", "no-such-program")
