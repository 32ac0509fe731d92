"""The real launcher, with promises that behave and promises that do not."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from tests.integration.node.promise.conftest import Partition

SAY = 'self.logger.info("fine")'
COMPLAIN = 'self.logger.error("down")'


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Poll until it is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def pid_in(path: Path) -> int:
    return int(path.read_text())


def test_plugins_and_executables_say_how_it_is(partition: Partition) -> None:
    partition.plugin("good.py", SAY)
    partition.plugin("bad.py", COMPLAIN)
    partition.executable("yes", "echo all is well")
    partition.executable("no", "echo broken >&2; exit 3")
    found = {title: (r.failed, r.message) for title, r in partition.check().items()}
    assert found == {
        "good": (False, "fine"),
        "bad": (True, "down"),
        "yes": (False, "all is well"),
        "no": (True, "broken"),
    }


def test_results_and_logs_are_where_monitors_look(partition: Partition) -> None:
    partition.plugin("bad.py", COMPLAIN)
    partition.check()
    document = json.loads(partition.state("result/bad.status.json").read_text())
    assert document["execution-time"] > 0
    date = document["result"].pop("date")
    assert date.endswith("+0000")
    assert document.pop("since") == date
    del document["execution-time"]
    assert document == {
        "title": "bad",
        "name": "bad.py",
        "path": str(partition.directory / "etc/plugin/bad.py"),
        "result": {"type": "Test Result", "failed": True, "message": "down"},
    }
    assert partition.state("log/bad.log").read_text().endswith(" - down\n")


def test_a_promise_gets_its_config(partition: Partition) -> None:
    keys = ["partition-id", "computer-id", "master-url", "promise-timeout", "mine"]
    partition.plugin(
        "config.py",
        f"self.logger.info('%s', [self.getConfig(key) for key in {keys}])",
        extra={"mine": [1, 2]},
    )
    [result] = partition.check().values()
    assert result.message == "['slappart0', 'COMP-1', 'http://127.0.0.1:1', 20.0, [1, 2]]"


def test_file_names_never_stand_in_for_modules(partition: Partition) -> None:
    for name in ("http.py", "json.py", "logging.py", "slapos.py", "slapos_x.py", "1 & 2.py"):
        partition.plugin(
            name, "import http.client, json, logging.handlers, slapos.protocol\n" + SAY
        )
    partition.file("json.py", "raise SystemExit('the wrong json')")  # in the working directory
    assert {r.failed for r in partition.check().values()} == {False}
    assert not list(partition.directory.rglob("__pycache__"))


def test_titles_that_collide_are_told_apart(partition: Partition) -> None:
    partition.plugin("a.py", SAY)
    partition.executable("a", "exit 1")
    partition.executable("a.sh", "exit 0")
    assert {t: r.failed for t, r in partition.check().items()} == {
        "a": False,
        "a-2": True,
        "a.sh": False,
    }
    assert partition.state("result/a-2.status.json").exists()


# What is wrong with a plugin is said of that plugin, and the others are not hindered.


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("def (", "line 1: invalid syntax"),
        ("x = 1", "no class RunPromise"),
        ("import no_such_module", "No module named 'no_such_module'"),
        ("raise SystemExit(3)", "SystemExit: 3 (broken.py, line 1)"),
        ("1 / 0", "ZeroDivisionError"),
        ("RunPromise = dict\nextra_config_dict = 3", "extra_config_dict is a int"),
        ("RunPromise = dict\nextra_config_dict = {'partition-id': 3}", "partition-id"),
        ("RunPromise = dict", "AttributeError"),
        ("from slapos.grid.promise.generic import GenericPromise", "slapos.grid"),
        ("import os; os._exit(0)", "No output returned"),
        ("import os; os.abort()", "SIGABRT"),
        ("\0", "null bytes"),
        ("import os; os.close(3)", "no class RunPromise"),
    ],
)
def test_a_broken_plugin_is_told_and_hinders_nobody(
    partition: Partition, text: str, told: str
) -> None:
    partition.file("etc/plugin/broken.py", text)
    partition.plugin("good.py", SAY)
    found = partition.check()
    assert not found["good"].failed
    assert found["broken"].failed
    if "close(3)" not in text:
        assert told in found["broken"].message


@pytest.mark.parametrize(
    ("sense", "told"),
    [
        ("raise KeyError('port')", "KeyError: 'port' (bad.py, line 13)"),
        ("raise SystemExit('enough')", "SystemExit: enough"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        ("self.test = lambda: None", "its method test returned None"),
        ("self.test = lambda: 1 / 0", "ZeroDivisionError"),
    ],
)
def test_a_promise_that_fails_to_answer_fails(partition: Partition, sense: str, told: str) -> None:
    partition.plugin("bad.py", sense)
    [result] = partition.check().values()
    assert result.failed
    assert told in result.message


def test_files_that_are_no_promises_are_passed_over(partition: Partition) -> None:
    partition.file("etc/promise/not-executable", "#!/bin/sh\n")
    partition.executable("yes", "true")
    partition.file("etc/promise/no-such-interpreter", "#!/no/such\n").chmod(0o755)
    partition.file("etc/promise/no-interpreter", "true").chmod(0o755)
    found = partition.check()
    assert {title: result.failed for title, result in found.items()} == {
        "yes": False,
        "no-such-interpreter": True,
        "no-interpreter": True,
    }
    assert "interpreter" in found["no-such-interpreter"].message


# A promise of another library, as slapos.core's, which is on the path that the plugin sets.

FOREIGN = """\
import logging

class Result:
    message = "as it was"
    def hasFailed(self): return True
    def type(self): return "Anomaly Result"

class GenericPromise:
    def __init__(self, config):
        assert config["queue"] is not None
        self.path = config["path"]
        self.logger = logging.getLogger(config["name"])
        self.__allow_bang = False
    def getPromiseFile(self): return self.path
    def getPeriodicity(self): return 7
    def sense(self): raise ValueError("logged by itself")
    def anomaly(self): return Result()
    test = anomaly
"""


def test_promises_of_another_library_run_beside_ours(
    partition: Partition, master: tuple[str, list[dict[str, str]]]
) -> None:
    partition.options["master_url"], posted = master
    partition.file("eggs/core/slapos/grid/promise/generic.py", FOREIGN)
    partition.file(
        "etc/plugin/theirs.py",
        f"""\
import sys
sys.path[0:0] = [{str(partition.directory / "eggs/core")!r}]
for name in [name for name in sys.modules if name.split(".")[0] == "slapos"]:
    del sys.modules[name]
from slapos.grid.promise.generic import GenericPromise as RunPromise
""",
    )
    partition.plugin("ours.py", SAY)
    found = partition.check("anomaly")
    assert not found["ours"].failed
    assert (found["theirs"].failed, found["theirs"].message) == (True, "as it was")
    assert posted == []  # its own word on bangs is kept to
    stored = json.loads(partition.state("state/promises.json").read_text())
    assert stored["theirs"]["schedule"]["periodicity"] == 7


# Limits.


def test_a_promise_that_hangs_and_ignores_sigterm_is_ended(partition: Partition) -> None:
    partition.options["timeout"] = 0.5
    partition.plugin(
        "stuck.py",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('here', flush=True)\n"
        "open('pid', 'w').write(str(os.getpid()))\ntime.sleep(600)",
    )
    partition.executable("stuck-too", "trap '' TERM; sleep 600 & sleep 600; sleep 600")
    partition.plugin("good.py", SAY)
    found = partition.check()
    assert not found["good"].failed
    assert found["stuck"].failed
    assert found["stuck"].message.startswith("Error: Promise timed out after 0.5 seconds")
    assert found["stuck"].message.endswith("here")
    assert found["stuck-too"].failed
    assert not is_alive(pid_in(partition.directory / "pid"))
    assert "timed out" in partition.state("log/stuck.log").read_text()


def test_a_time_out_is_an_anomaly_the_second_time(partition: Partition) -> None:
    partition.options["timeout"] = 0.3
    partition.plugin("stuck.py", "time.sleep(600)")
    assert [partition.check("anomaly")["stuck"].failed for _ in range(2)] == [False, True]


@pytest.mark.parametrize("ending", ["pass", "os.abort()", "time.sleep(600)"])
def test_nothing_that_a_promise_starts_outlives_it(partition: Partition, ending: str) -> None:
    partition.options["timeout"] = 1.0
    partition.plugin(
        "daemon.py",
        f"""
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                open("pid.tmp", "w").write(str(os.getpid()))
                os.rename("pid.tmp", "pid")
                time.sleep(600)
            os._exit(0)
        while not os.path.exists("pid"):
            time.sleep(0.01)
        {ending}
        """,
    )
    partition.check()
    assert not is_alive(pid_in(partition.directory / "pid"))


def test_a_promise_that_floods_its_output_is_ended(partition: Partition) -> None:
    partition.plugin("flood.py", "while True: os.write(1, b'x' * 65536)")
    partition.executable("flood-too", "exec yes")
    found = partition.check()
    for title in ("flood", "flood-too"):
        assert found[title].failed
        assert found[title].message == "Error: Promise printed more than 16 MiB"
        assert found[title].execution_time < 20


def test_a_promise_that_floods_its_log_is_limited(partition: Partition) -> None:
    partition.plugin("flood.py", "for _ in range(3000): self.logger.error('x' * 1000)")
    [result] = partition.check().values()
    assert result.failed
    assert len(result.message) < 6000
    assert partition.state("log/flood.log").stat().st_size < 2_000_000


def test_promises_run_side_by_side(partition: Partition) -> None:
    meet = """
        open(self.getTitle(), "w").close()
        while not all(os.path.exists(title) for title in "abcd"):
            time.sleep(0.01)
        """
    for title in "abcd":
        partition.plugin(f"{title}.py", meet)
    assert not any(result.failed for result in partition.check().values())


def test_a_launcher_that_is_ended_takes_its_promises_along(partition: Partition) -> None:
    partition.plugin(
        "long.py",
        "open('pid.tmp', 'w').write(str(os.getpid()))\nos.rename('pid.tmp', 'pid')\n"
        "time.sleep(600)",
    )
    launcher = subprocess.Popen(
        [
            sys.executable,
            "-P",
            "-m",
            "slapos.node.promise.launcher",
            "--partition=p",
            "--node=n",
            "--master-url=http://127.0.0.1:1",
            f"--partition-directory={partition.directory}",
        ]
    )
    wait_until((partition.directory / "pid").exists)
    launcher.send_signal(signal.SIGTERM)
    assert launcher.wait(10) == 128 + signal.SIGTERM
    assert not is_alive(pid_in(partition.directory / "pid"))


# Whose turn it is.

COUNT = 'open("count", "a").write("x")\n'


def count(partition: Partition) -> int:
    return len((partition.directory / "count").read_text())


def test_a_result_counts_until_the_promise_is_due_again(partition: Partition) -> None:
    partition.plugin("bad.py", COUNT + COMPLAIN)
    first = partition.check(force=False)
    again = partition.check(force=False)
    assert count(partition) == 1
    assert again["bad"].failed
    assert again["bad"].date == first["bad"].date.replace(microsecond=0)
    partition.check(force=True)
    assert count(partition) == 2


def test_a_promise_is_due_when_its_period_is_over_or_its_file_changed(partition: Partition) -> None:
    partition.plugin("a.py", COUNT, setup="self.setPeriodicity(0.0001)")
    partition.check(force=False)
    partition.check(force=False)
    assert count(partition) == 2
    partition.plugin("a.py", COUNT)
    partition.check(force=False)
    partition.plugin("a.py", COUNT + SAY)
    partition.check(force=False)
    assert count(partition) == 4


def test_a_mode_in_which_a_promise_takes_no_part(partition: Partition) -> None:
    partition.plugin(
        "quiet.py", COUNT + COMPLAIN, setup="self.setTestLess(); self.allowBang(False)"
    )
    assert partition.check("test") == {}
    assert partition.check("test") == {}
    assert not (partition.directory / "count").exists()
    assert partition.check("anomaly")["quiet"].kind == "Anomaly Result"


def test_taking_part_in_no_mode_is_a_mistake_that_is_told(partition: Partition) -> None:
    setup = "self.setTestLess(); self.setAnomalyLess(); self.allowBang(False)"
    partition.plugin("mute.py", setup=setup)
    assert partition.check()["mute"].failed
    assert partition.check("anomaly")["mute"].failed


def test_what_is_stored_of_a_removed_promise_goes(partition: Partition) -> None:
    partition.plugin("a.py", SAY)
    partition.plugin("b.py", SAY)
    partition.check()
    (partition.directory / "etc/plugin/b.py").unlink()
    assert set(partition.check()) == {"a"}
    assert not partition.state("result/b.status.json").exists()


# The master.


@pytest.fixture
def master() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A master that notes what is posted."""
    posted: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            form = {key: values[0] for key, values in parse_qs(body).items()}
            posted.append({"call": self.path.lstrip("/"), **form})
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", posted
        server.shutdown()
        thread.join()


def test_anomalies_bang_once_a_run(
    partition: Partition, master: tuple[str, list[dict[str, str]]]
) -> None:
    partition.options["master_url"], posted = master
    partition.plugin("a.py", COMPLAIN)
    partition.plugin("b.py", COMPLAIN)
    partition.check("anomaly")
    [bang] = posted
    assert bang.pop("message") in ("Promise a is failing", "Promise b is failing")
    assert bang == {
        "call": "softwareInstanceBang",
        "computer_id": "COMP-1",
        "computer_partition_id": "slappart0",
    }


@pytest.mark.parametrize(
    "given",
    [
        {"sense": SAY},
        {"sense": COMPLAIN, "setup": "self.allowBang(False)"},
        {"sense": COMPLAIN, "extra": {"bang-on-failure": "false"}},
        {"sense": COMPLAIN + "\nself.anomaly = self._test"},
    ],
)
def test_who_may_not_bang_does_not(
    partition: Partition, master: tuple[str, list[dict[str, str]]], given: dict[str, str]
) -> None:
    partition.options["master_url"], posted = master
    partition.plugin("a.py", **given)
    partition.check("anomaly")
    assert posted == []


def test_a_test_does_not_bang(
    partition: Partition, master: tuple[str, list[dict[str, str]]]
) -> None:
    partition.options["master_url"], posted = master
    partition.plugin("a.py", COMPLAIN)
    partition.check("test")
    assert posted == []


def test_a_master_that_is_away_changes_no_result(partition: Partition) -> None:
    partition.plugin("a.py", COMPLAIN)
    assert {t: r.message for t, r in partition.check("anomaly").items()} == {"a": "down"}


# Users.


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_promises_run_as_the_partitions_user_with_nothing_of_ours(
    nobodys_partition: Partition,
) -> None:
    partition = nobodys_partition
    (partition.directory / ".slapgrid").mkdir()  # as root, which the user must be able to write in
    names = "sorted(set(os.environ) - {'LC_CTYPE', 'PWD', 'OLDPWD', 'SHLVL', '_'})"
    partition.plugin("who.py", f"self.logger.info('%s %s', os.getuid(), {names})")
    partition.executable("who-too", "id -u; echo $HOME")
    found = partition.check()
    assert found["who"].message == "65534 ['HOME', 'LOGNAME', 'PATH', 'USER']"
    assert found["who-too"].message == f"65534\n{partition.directory}"
    assert partition.state("result/who.status.json").stat().st_uid == 65534


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_root_does_not_follow_a_link_that_a_user_put(nobodys_partition: Partition) -> None:
    partition = nobodys_partition
    elsewhere = partition.directory / "elsewhere"
    elsewhere.mkdir()
    (partition.directory / ".slapgrid").symlink_to(elsewhere)
    partition.plugin("a.py", SAY)
    [result] = partition.check().values()
    assert result.failed
    assert elsewhere.stat().st_uid == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_partition_that_cannot_be_written_is_told(partition: Partition) -> None:
    partition.plugin("a.py", SAY)
    partition.directory.chmod(0o500)
    [result] = partition.check().values()
    assert "cannot be run" in result.message
    assert ".slapgrid" in result.message
