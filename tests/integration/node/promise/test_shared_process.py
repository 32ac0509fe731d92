"""Promises that share a process, and those that are given one of their own."""

import json
import os
import socket
from pathlib import Path

import pytest

from tests.integration.node.promise.conftest import Partition

WHO = 'self.logger.info("%d", os.getpid())'


def pids(partition: Partition) -> dict[str, str]:
    """Check promises that say which process they run in."""
    return {title: result.message for title, result in partition.check().items()}


def test_promises_run_in_one_process_one_after_the_other(partition: Partition) -> None:
    for number in range(10):
        partition.plugin(f"p{number}.py", WHO)
    assert len(set(pids(partition).values())) == 1


SPOILING = {
    "working directory": "os.chdir('/')",
    "environment": "os.environ['HOME'] = '/nowhere'",
    "umask": "os.umask(0o777)",
    "path": "sys.path.insert(0, '/nowhere')",
    "open file": "self.__class__.kept = open('/dev/null')",
    "closed output": "os.close(1)",
    "output elsewhere": "os.dup2(os.open('/dev/null', os.O_WRONLY), 1)",
    "thread": "threading.Thread(target=time.sleep, args=[600], daemon=True).start()",
    "child": "subprocess.Popen(['sleep', '600'])",
    "ended child": "os.spawnlp(os.P_NOWAIT, 'true', 'true')",
    "daemon": "subprocess.run(['sh', '-c', 'setsid sleep 600 >/dev/null 2>&1 &'])",
    "handler": "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
    "mask": "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])",
    "alarm": "signal.alarm(600)",
    "limit": "resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))",
    "priority": "os.nice(3)",
    "time-out": "socket.setdefaulttimeout(1)",
    "output of Python": "sys.stdout = sys.stderr",
    "log": "logging.basicConfig(filename='/dev/null')",
    "warnings": "warnings.simplefilter('error')",
    "module": "socket.socket = None",
    "unloaded modules": "[sys.modules.pop(n) for n in list(sys.modules) if n.startswith('slapos')]",
    "memory": "self.__class__.kept = b'x' * 200_000_000",
    "built-in": "import builtins; builtins.open = None",
}
IMPORTS = "import logging, resource, socket, subprocess, sys, threading, warnings\n"


@pytest.mark.parametrize("trace", SPOILING)
def test_who_leaves_a_trace_shares_with_nobody_after_it(partition: Partition, trace: str) -> None:
    partition.plugin("a.py", WHO)
    partition.plugin("b.py", IMPORTS + WHO + "\n" + SPOILING[trace])
    partition.plugin("c.py", WHO)
    partition.plugin("d.py", WHO)
    found = partition.check()
    assert not any(result.failed for result in found.values()), found
    pid = {title: result.message for title, result in found.items()}
    assert pid["a"] == pid["b"]
    assert pid["c"] != pid["b"]
    assert pid["c"] == pid["d"]


@pytest.mark.parametrize("end", ["os._exit(0)", "os.abort()", "os.kill(os.getpid(), 9)"])
def test_who_ends_its_process_costs_itself_only(partition: Partition, end: str) -> None:
    for title in "acd":
        partition.plugin(f"{title}.py", WHO)
    partition.plugin("b.py", end)
    found = partition.check()
    assert {title for title, result in found.items() if result.failed} == {"b"}
    assert found["c"].message == found["d"].message != found["a"].message


@pytest.mark.parametrize(
    "garbage",
    [
        "os.write(3, b'garbage')",
        "os.write(3, b'garbage\\n')",
        "os.write(3, b'+0 {}\\n')",
        "os.write(3, b'+7 {}\\n')",
        "os.write(3, b'\\n')",
        "os.write(3, b'x' * 2_000_000)",
        "os.write(3, b'+1 ' + b'[' * 100_000 + b'\\n')",
        "os.write(3, b'+1 {}\\n'); time.sleep(0.05)",
        "os.read(4, 100) if False else os.close(4)",
        "os.close(3)",
    ],
)
def test_garbage_where_it_answers_costs_itself_only(partition: Partition, garbage: str) -> None:
    for title in "acd":
        partition.plugin(f"{title}.py", WHO)
    partition.plugin("b.py", garbage)
    found = partition.check()
    assert {title for title, result in found.items() if result.failed} <= {"b"}
    assert set(found) == set("abcd")


def test_a_fork_that_goes_on_is_no_second_worker(partition: Partition) -> None:
    partition.plugin("a.py", "if os.fork() == 0: time.sleep(0.1)\n" + WHO)
    for title in "bcd":
        partition.plugin(f"{title}.py", "open('count', 'a').write('x')")
    found = partition.check()
    assert not any(result.failed for result in found.values())
    assert (partition.directory / "count").read_text() == "xxx"


def test_what_one_prints_is_not_told_of_another(partition: Partition) -> None:
    for title in "abc":
        partition.plugin(f"{title}.py", f"print('{title}' * 3)\n" + WHO)
    partition.plugin("d.py", "os.write(1, b'its end'); os._exit(1)")
    found = partition.check()
    assert found["d"].message.endswith("it printed: its end")
    for title in "abc":
        debug = partition.state(f"log/{title}.log").read_text().splitlines()[-1]
        assert debug.endswith(f" - {title * 3}")


def test_modules_of_different_eggs_are_told_apart(partition: Partition) -> None:
    for name in "xy":
        partition.file(f"eggs/{name}/helper.py", f"NAME = '{name}'")
    for title, name in (("a", "x"), ("b", "y"), ("c", "x")):
        partition.file(
            f"etc/plugin/{title}.py",
            f"""\
import sys
sys.path[0:0] = [{str(partition.directory / "eggs" / name)!r}]
import os
import helper
from slapos.node.promise.generic import GenericPromise

class RunPromise(GenericPromise):
    def sense(self):
        self.logger.info("%s %d", helper.NAME, os.getpid())
""",
        )
    said = {title: result.message.split() for title, result in partition.check().items()}
    assert {title: name for title, (name, _) in said.items()} == {"a": "x", "b": "y", "c": "x"}
    assert said["a"][1] == said["c"][1] != said["b"][1]


def test_a_slow_promise_holds_nobody_up(partition: Partition) -> None:
    partition.plugin("a.py", "while not os.path.exists('d'): time.sleep(0.01)")
    for title in "bcd":
        partition.plugin(f"{title}.py", "open(self.getTitle(), 'w').close()")
    assert not any(result.failed for result in partition.check().values())


# Ours need no process.


def ours(partition: Partition, file: str, plugin: str, **options: object) -> None:
    partition.file(
        f"etc/plugin/{file}",
        f"import sys\nsys.path[0:0] = []\n\nextra_config_dict = {options!r}\n\n"
        f"from slapos.node.promise.plugin.{plugin} import RunPromise\n",
    )


def test_promises_of_ours_say_the_same_without_a_process(partition: Partition) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        ours(partition, "open.py", "check_socket_listening", host="127.0.0.1", port=port)
        ours(partition, "file.py", "check_file_state", filename="a", state="absent")
        found = partition.check()
    assert {title: result.failed for title, result in found.items()} == {
        "open": False,
        "file": False,
    }
    found = partition.check()
    assert "refused" in found["open"].message
    assert partition.state("log/open.log").read_text().count("\n") == 2
    runs = partition.state("state/open.runs.jsonl").read_text().splitlines()
    assert [json.loads(run)["lines"][0][1] for run in runs] == ["INFO", "ERROR"]


def test_one_of_ours_that_is_slow_gets_a_process_and_says_what_it_found(
    partition: Partition,
) -> None:
    # Nobody takes these connections, and the second one waits.
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            partition.options["timeout"] = 1.0
            ours(partition, "slow.py", "check_socket_listening", host="127.0.0.1", port=port)
            [result] = partition.check().values()
    assert result.failed
    assert "timed out" in result.message


@pytest.mark.parametrize(
    ("plugin", "options", "told"),
    [
        ("check_file_state", {"state": "absent"}, "the option filename is missing"),
        ("check_file_state", {"filename": "a", "state": "absent", "name": "b"}, "has name"),
        ("check_no_such", {}, "No module named"),
    ],
)
def test_one_of_ours_that_cannot_be_is_told(
    partition: Partition, plugin: str, options: dict[str, object], told: str
) -> None:
    ours(partition, "bad.py", plugin, **options)
    [result] = partition.check().values()
    assert result.failed
    assert told in result.message


def test_files_elsewhere_are_looked_at_where_that_may_hang(
    partition: Partition, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "fifo")
    ours(partition, "a.py", "check_file_state", filename="/dev/null", state="empty")
    ours(partition, "b.py", "check_file_state", filename="../../x", state="absent")
    assert not any(result.failed for result in partition.check().values())
