"""What services print, and read, under a real supervisord."""

import os
import signal
from collections.abc import Callable

import pytest

from tests.integration.node.supervise.supervised import Partitions
from tests.integration.node.world import is_running, is_written, until

WEB = "web-on-watch"


def test_what_a_service_prints_is_kept_within_bounds(partitions: Partitions) -> None:
    partitions.service(
        "web",
        "for i in $(seq 40); do head -c 10000 /dev/zero | tr '\\0' x; echo; done\n"
        "echo the end >&2; exec sleep 600",
    )
    partitions.run()
    log = partitions.layout.output("slappart0") / ".slappart0_web.log"
    until(lambda: log.exists() and "the end" in log.read_text())
    kept = sorted(path.name for path in log.parent.iterdir())
    assert kept == [".slappart0_web.log", ".slappart0_web.log.1"]
    assert sum(path.stat().st_size for path in log.parent.iterdir()) <= 4 * 131072
    assert (partitions.partition() / ".slappart0_web.log").readlink() == log


def test_a_service_that_prints_nothing_has_a_log(partitions: Partitions) -> None:
    partitions.service("web")
    partitions.run()
    server = partitions.supervisor._server.supervisor
    assert server.readProcessStdoutLog(f"slappart0:{WEB}", 0, 0) == ""


def test_logs_are_emptied_and_their_removal_survived(partitions: Partitions) -> None:
    partitions.service("web", "echo one; trap 'echo two' USR1; while :; do sleep 0.02; done")
    partitions.run()
    log = partitions.layout.output("slappart0") / ".slappart0_web.log"
    until(lambda: log.read_text() == "one\n")
    partitions.supervisor._server.supervisor.clearProcessLogs(f"slappart0:{WEB}")
    assert log.read_text() == ""
    log.unlink()
    os.kill(partitions.process(WEB).pid, signal.SIGUSR1)
    until(lambda: log.exists() and log.read_text() == "two\n")


@pytest.mark.parametrize("obstacle", ["folder", "pipe", "link"])
def test_a_log_that_cannot_be_written_does_not_stop_a_service(
    partitions: Partitions, obstacle: str
) -> None:
    partitions.service("web", "echo one; trap 'echo two' USR1; while :; do sleep 0.02; done")
    partitions.run()
    log = partitions.layout.output("slappart0") / ".slappart0_web.log"
    until(lambda: log.read_text() == "one\n")
    log.unlink()
    target = partitions.root / "target"
    put: dict[str, Callable[[], None]] = {
        "folder": log.mkdir,
        "pipe": lambda: os.mkfifo(log),
        "link": lambda: log.symlink_to(target),
    }
    put[obstacle]()
    process = partitions.process(WEB)
    os.kill(process.pid, signal.SIGUSR1)
    partitions.service("other", reference="slappart1")
    partitions.run("slappart1")
    log.rename(partitions.root / "away")
    os.kill(process.pid, signal.SIGUSR1)
    until(lambda: log.exists() and "two" in log.read_text())
    assert not target.exists()
    assert partitions.process(WEB).pid == process.pid


def test_the_input_of_a_service_stays_open_and_can_be_written(partitions: Partitions) -> None:
    partitions.service("web", 'read line; echo "$line" > heard; read line; echo end > heard')
    partitions.run()
    heard = partitions.partition() / "heard"
    assert not heard.exists()
    partitions.supervisor._server.supervisor.sendProcessStdin(f"slappart0:{WEB}", "hello\n")
    until(lambda: is_written(heard))
    assert heard.read_text() == "hello\n"
    assert is_running(partitions.process(WEB).pid)


def test_what_a_service_leaves_behind_does_not_disturb(partitions: Partitions) -> None:
    partitions.service("web", "(trap '' HUP; sleep 600) & echo $! > child; echo gone; exit 3")
    partitions.run()
    child = partitions.partition() / "child"
    until(lambda: is_written(child) and partitions.process(WEB).state == "EXITED")
    assert partitions.process(WEB).exit_status == 3
    assert is_running(int(child.read_text()))
    partitions.run()
    os.kill(int(child.read_text()), signal.SIGKILL)
