"""What supervisord lacks: taking over the file of one group, while all others go on untouched.

Loaded by supervisord itself, through its extension point for RPC interfaces. What these calls cost
does not depend on how many other groups there are.
"""

from typing import Any

from supervisor.events import ProcessStateEvent, Tick5Event, subscribe
from supervisor.rpcinterface import SupervisorNamespaceRPCInterface
from supervisor.states import (
    RUNNING_STATES,
    STOPPED_STATES,
    ProcessStates,
    getProcessStateDescription,
)
from supervisor.xmlrpc import Faults, RPCError

from slapos.node.supervise.events import Announcer, ProcessEvent
from slapos.node.supervise.group_files import layout_of, read_group
from slapos.system.clock import SystemClock

#: What makes two configurations of one process the same program.
IDENTITY = ("name", "command", "directory", "uid")


class SlaposInterface:
    """The calls `slapos.*` of supervisord's XML-RPC."""

    def __init__(self, supervisord: Any) -> None:
        self._supervisord = supervisord
        self._standard = SupervisorNamespaceRPCInterface(supervisord)

    def loadGroup(self, name: str) -> list[str]:  # noqa: N802 - as XML-RPC calls are named
        """Bring a group to what its configuration file says; no other file is read.

        Programs that are new are added, those that are gone or have another command are stopped
        and then replaced, all others are left running, and have the rest of their configuration
        from their next start. Returns the processes that are still stopping: call again until
        there are none.

        @param string name  The name of the group, and of its file
        @return array       Names of processes
        """
        self._standard._update("loadGroup")
        try:
            configuration = read_group(self._supervisord.options, name)
        except ValueError as error:
            raise RPCError(Faults.CANT_REREAD, str(error)) from error
        if configuration is None:
            raise RPCError(Faults.BAD_NAME, name)
        self._know(name, configuration)
        if self._supervisord.add_process_group(configuration):
            return []
        return _update(self._supervisord.process_groups[name], configuration)

    def updateGroup(self, name: str) -> list[str]:  # noqa: N802
        """Bring a group to what the files said when all were last read; else as loadGroup.

        @param string name  The name of the group
        @return array       Names of processes
        """
        group = self._supervisord.process_groups.get(name)
        configuration = next(
            (c for c in self._supervisord.options.process_group_configs if c.name == name), None
        )
        if group is None or configuration is None:
            raise RPCError(Faults.BAD_NAME, name)
        return _update(group, configuration)

    def removeGroup(self, name: str) -> list[str]:  # noqa: N802
        """Stop a group and remove it; its file should be gone already.

        Returns the processes that are still stopping: call again until there are none.

        @param string name  The name of the group
        @return array       Names of processes
        """
        self._standard._update("removeGroup")
        self._know(name, None)
        group = self._supervisord.process_groups.get(name)
        if group is None:
            return []
        for process in group.processes.values():
            _stop(process)
        stopping = [process.config.name for process in group.get_unstopped_processes()]
        if not stopping:
            self._supervisord.remove_process_group(name)
        return stopping

    def startGroup(self, name: str) -> list[list[str]]:  # noqa: N802
        """Start all programs of a group that do not run, and wait for none.

        Returns a name and a reason for each that cannot be started.

        @param string name  The name of the group
        @return array       Names and reasons
        """
        group = self._supervisord.process_groups.get(name)
        if group is None:
            raise RPCError(Faults.BAD_NAME, name)
        failed = []
        for process in sorted(group.processes.values()):
            if process.get_state() in (ProcessStates.RUNNING, ProcessStates.STARTING):
                continue
            try:
                self._standard.startProcess(f"{name}:{process.config.name}", False)
            except RPCError as error:
                if error.code != Faults.ALREADY_STARTED:
                    failed.append([process.config.name, process.spawnerr or error.text])
        return failed

    def stayStopped(self, name: str) -> list[str]:  # noqa: N802
        """Have processes that ended on their own count as stopped, so that nobody starts them.

        supervisor.stopProcess does that for those that run. Returns `group:process` of each.

        @param string name  `group:process`, `group:*` or `all`
        @return array       Names of processes
        """
        ended = []
        for group, process in self._standard._getAllProcesses(lexical=True):
            full = f"{group.config.name}:{process.config.name}"
            is_meant = name in ("all", full, f"{group.config.name}:*")
            if is_meant and process.get_state() in (ProcessStates.EXITED, ProcessStates.FATAL):
                process.change_state(ProcessStates.STOPPED)
                ended.append(full)
        return ended

    def groupProcesses(self, name: str) -> list[dict[str, Any]]:  # noqa: N802
        """Return what supervisor.getAllProcessInfo returns, for one group.

        @param string name  The name of the group
        @return array       Structs, none where there is no such group
        """
        self._standard._update("groupProcesses")
        group = self._supervisord.process_groups.get(name)
        names = sorted(group.processes) if group is not None else []
        return [self._standard.getProcessInfo(f"{name}:{process}") for process in names]

    def _know(self, name: str, configuration: Any) -> None:
        """Have `configuration` be what the files say of a group: what `update` compares with."""
        options = self._supervisord.options
        others = [known for known in options.process_group_configs if known.name != name]
        options.process_group_configs = others + ([configuration] if configuration else [])


def _update(group: Any, configuration: Any) -> list[str]:
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
    _announce(Announcer(layout_of(supervisord.options).node_socket))
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
