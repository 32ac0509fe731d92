"""Events of processes, from a real supervisord."""

import os
import signal

from slapos.node.supervise.events import ProcessEvent, ProcessEvents
from tests.integration.node.supervise.supervised import Partitions
from tests.integration.node.world import until


def collect(events: ProcessEvents, last: str) -> list[ProcessEvent]:
    """Return what comes, up to a process in the state `last`."""
    found: list[ProcessEvent] = []
    while not found or found[-1].event != last:
        come = events.wait(20.0)
        assert come, f"no {last} after {found}"
        found += come
    return found


def test_what_happens_to_a_service_is_told(partitions: Partitions) -> None:
    partitions.service("web")
    with ProcessEvents(partitions.layout.node_socket) as events:
        partitions.run()
        pid = partitions.process("web-on-watch").pid
        started = collect(events, "RUNNING")
        assert [(e.event, e.from_state) for e in started] == [
            ("STARTING", "STOPPED"),
            ("RUNNING", "STARTING"),
        ]
        os.kill(pid, signal.SIGKILL)
        [ended] = collect(events, "EXITED")
        assert (ended.group, ended.name) == ("slappart0", "web-on-watch")
        assert (ended.pid, ended.expected, ended.from_state) == (pid, False, "RUNNING")
        partitions.run()
        collect(events, "RUNNING")
        partitions.supervisor.stop_partition("slappart0")
        assert [e.event for e in collect(events, "STOPPED")] == ["STOPPING", "STOPPED"]


def test_supervision_goes_on_without_an_agent_and_finds_the_next_one(
    partitions: Partitions,
) -> None:
    partitions.service("web")
    with ProcessEvents(partitions.layout.node_socket):
        partitions.run()
    killed = partitions.process("web-on-watch").pid
    os.kill(killed, signal.SIGKILL)
    until(lambda: not partitions.process("web-on-watch").is_running, "supervisord has noticed")
    partitions.run()
    with ProcessEvents(partitions.layout.node_socket) as events:
        os.kill(partitions.process("web-on-watch").pid, signal.SIGKILL)
        assert "EXITED" in {event.event for event in collect(events, "EXITED")}


def test_supervisord_that_begins_anew_tells_each_event_once(partitions: Partitions) -> None:
    partitions.service("web")
    partitions.run()
    pid = partitions.supervisor._server.supervisor.getPID()
    with ProcessEvents(partitions.layout.node_socket) as events:
        os.kill(int(str(pid)), signal.SIGHUP)
        collect(events, "STOPPED")
        partitions.supervisor.ensure_running()
        partitions.run()
        assert [e.event for e in collect(events, "RUNNING")] == ["STARTING", "RUNNING"]
