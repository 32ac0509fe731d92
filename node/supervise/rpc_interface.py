"""What supervisord lacks: changing one program of a group while the others go on running.

Loaded by supervisord itself, through its extension point for RPC interfaces.
"""

from pathlib import Path
from typing import Any

from supervisor.events import ProcessStateEvent, Tick5Event, subscribe
from supervisor.states import RUNNING_STATES, STOPPED_STATES, getProcessStateDescription
from supervisor.xmlrpc import Faults, RPCError

from slapos.node.layout import Layout
from slapos.node.supervise.events import Announcer, ProcessEvent
from slapos.node.supervise.limited_process import confine_processes
from slapos.system.clock import SystemClock

#: What makes two configurations of one process the same program.
IDENTITY = ("name", "command", "directory", "uid")


class SlaposInterface:
    """The calls `slapos.*` of supervisord's XML-RPC."""

    def __init__(self, supervisord: Any) -> None:
        self._supervisord = supervisord

    def updateGroup(self, name: str) -> list[str]:  # noqa: N802 - as XML-RPC calls are named
        """Bring a group to what the configuration files said when they were last read.

        Programs that are new are added, those that are gone or have another command are stopped
        and then replaced, all others are left running. Returns the processes that are still
        stopping: call again until there are none.

        @param string name  The name of the group
        @return array       Names of processes
        """
        group = self._supervisord.process_groups.get(name)
        configuration = next(
            (c for c in self._supervisord.options.process_group_configs if c.name == name), None
        )
        if group is None or configuration is None:
            raise RPCError(Faults.BAD_NAME, name)
        wanted = {process.name: process for process in configuration.process_configs}
        stopping = []
        for process in list(group.processes.values()):
            following = wanted.get(process.config.name)
            if following is not None and _is_same(process.config, following):
                following.create_autochildlogs()
                process.config = following  # for its next start
            elif process.get_state() in STOPPED_STATES:
                del group.processes[process.config.name]
            else:
                _stop(process)
                stopping.append(process.config.name)
        for following in wanted.values():
            if following.name not in group.processes:
                following.create_autochildlogs()
                group.processes[following.name] = following.make_process(group)
        if not stopping:
            group.config = configuration
        return stopping


def _is_same(one: Any, other: Any) -> bool:
    return all(getattr(one, name) == getattr(other, name) for name in IDENTITY)


def _stop(process: Any) -> None:
    if process.get_state() in RUNNING_STATES:
        process.stop()


def make_interface(supervisord: Any) -> SlaposInterface:
    """Return the interface; what supervisord's configuration names.

    supervisord calls this when it starts, after its groups are made and before any process is.
    """
    root = Path(supervisord.options.configfile).parent.parent
    _announce(Announcer(Layout(root, root).node_socket))
    confine_processes(Layout(root, root))
    return SlaposInterface(supervisord)


def _announce(announcer: Announcer) -> None:
    """Have each change of a process's state sent to the agent."""
    clock = SystemClock()

    def tell(event: Any) -> None:
        process = event.process
        announcer.send(
            ProcessEvent(
                event=getProcessStateDescription(process.state),
                group=process.group.config.name,
                name=process.config.name,
                from_state=getProcessStateDescription(event.from_state),
                pid=process.pid,
                expected=event.expected,
                at=clock.now().timestamp(),
            )
        )

    subscribe(ProcessStateEvent, tell)
    subscribe(Tick5Event, lambda _: announcer.flush())
