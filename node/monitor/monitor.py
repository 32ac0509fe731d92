"""The monitor: samples what partitions and the machine use, stores it, reports each day's sum."""

import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime

import psutil

from slapos.node.doors import Doors
from slapos.node.monitor.address import read_address
from slapos.node.monitor.billing import hand_over
from slapos.node.monitor.collector import Collector
from slapos.node.monitor.endpoint import MetricsEndpoint
from slapos.node.monitor.folders import Folders
from slapos.node.monitor.history import MACHINE, DaySum, History
from slapos.node.monitor.inhabited import Inhabited, Interfaces, find_inhabited
from slapos.node.monitor.machine import Machine, boot_identifier, read_machine
from slapos.node.monitor.measures import show
from slapos.node.monitor.processes import ProcessReader
from slapos.node.monitor.usage import Look, Usage, process_loads, used
from slapos.node.users import user_name
from slapos.protocol.errors import SlapOSError

logger = logging.getLogger(__name__)

#: Seconds between two samples that memory and disk are counted for at most: what was in a longer
#: gap, while the node was off, is not known. (It is twice the interval when that is more.)
LONGEST_GAP = 600.0
#: Seconds after the beginning of an interval: two clocks differ a little, and before is too early.
LATE = 0.05
#: Seconds between two looks when nothing is sampled.
IDLE = 60.0


class Monitor:
    """Samples a node. Whoever has it do so holds `layout.monitor_lock`: two would count twice."""

    def __init__(self, doors: Doors) -> None:
        settings = doors.settings
        self._doors = doors
        self._layout = settings.layout
        self._interval = settings.monitor_interval
        self._history = History(self._layout.measurements)
        self._collector = Collector(self._layout.measurements, days=settings.collect_cache)
        self._reader = ProcessReader(self._layout.supervisor_socket)
        self._interfaces = Interfaces()
        #: Measures folders: seldom, but it may take minutes, so it has a clock of its own.
        self.folders = Folders(doors, self._history, self._collector)
        self._before: Look | None = None
        self._is_first = True
        #: What partitions used that is not stored yet, and since the monitor began.
        self._not_stored: dict[tuple[str, str], DaySum] = {}
        self._totals: dict[str, DaySum] = {}
        #: The day before which all days were handed over.
        self._handed_over = ""
        self._names: dict[int, str] = {}
        self._said: dict[str, str] = {}
        self._endpoint: MetricsEndpoint | None = None

    def run_pending(self) -> float:
        """Sample, store, and report what is over; return the seconds until it has to be done again.

        That is at the beginning of a minute: readers of `collector.db` look for it there.
        """
        self._try("metrics", self._listen)
        if not self._interval:
            return IDLE
        self.sample()
        now = self._doors.now()
        return self._interval - now % self._interval + LATE

    def close(self) -> None:
        """Let go of what is held."""
        if self._endpoint is not None:
            self._endpoint.close()

    def sample(self) -> bool:
        """Take one sample, store it, and report days that are over; return whether all went well.

        What cannot be stored now is stored with the next one.
        """
        moment = self._doors.clock.now()
        if self._is_first:
            self._try("what was measured before", self._recall)
        inhabited = find_inhabited(self._layout, os.geteuid())
        machine = read_machine()
        look = self._look(machine, inhabited)
        before = look.since(self._before)
        usages = used(before, look, [*inhabited.owners, MACHINE])
        sizes: dict[str, tuple[float, int]] = {}
        self._try("sizes of folders", lambda: sizes.update(self._history.sizes()))
        for reference, usage in usages.items():
            if reference in sizes:
                usages[reference] = replace(usage, disk=sizes[reference][1])
        usages[MACHINE] = replace(
            usages[MACHINE],
            cpu=look.busy - before.busy if before is not None else 0.0,
            memory=machine.memory_used,
            disk=sum(disk.used for disk in machine.disks),
        )
        self._add_up(moment, usages)
        show(self._doors.metrics, machine, usages, self._totals)
        self._before = look
        self._try("history", lambda: self._store(moment, usages, look))
        self._try("collector", lambda: self._collect(moment, machine, look, before))
        self._try("report", lambda: self._report_days(f"{moment:%Y-%m-%d}"))
        return not self._said

    def _recall(self) -> None:
        self._before = self._history.last_look()
        self._is_first = False

    def _look(self, machine: Machine, inhabited: Inhabited) -> Look:
        # First the time: what starts while processes are read is not older than the look.
        uptime = time.clock_gettime(time.CLOCK_BOOTTIME)
        interfaces = machine.interfaces
        networks = {
            # What goes into a tap comes out of the machine behind it.
            partition: (interfaces[name].sent, interfaces[name].received)
            for name, partition in self._interfaces.of_partitions(
                interfaces, inhabited.alone
            ).items()
        }
        networks[MACHINE] = (machine.network.received, machine.network.sent)
        return Look(
            boot=boot_identifier(),
            uptime=uptime,
            processes=tuple(self._reader.read(inhabited)),
            busy=machine.busy,
            idle=machine.idle,
            networks=networks,
        )

    def _add_up(self, moment: datetime, usages: Mapping[str, Usage]) -> None:
        longest = max(LONGEST_GAP, 2 * self._interval)
        totals = {}
        for reference in usages.keys() - {MACHINE}:
            usage = usages[reference]
            added = DaySum.of(usage, longest)
            day = (f"{moment:%Y-%m-%d}", reference)
            self._not_stored[day] = self._not_stored.get(day, DaySum()) + added
            totals[reference] = self._totals.get(reference, DaySum()) + added
        self._totals = totals

    def _store(self, moment: datetime, usages: Mapping[str, Usage], look: Look) -> None:
        at = moment.timestamp()
        self._history.store(at, usages, self._not_stored, look)
        self._not_stored = {}
        self._history.tidy(at)

    def _collect(
        self,
        moment: datetime,
        machine: Machine,
        look: Look,
        before: Look | None,
    ) -> None:
        for user in {sample.user for sample in look.processes} - self._names.keys():
            self._names[user] = user_name(user)  # each look-up reads all users
        boot = psutil.boot_time()
        loads = process_loads(before, look)
        rows = [
            (self._names[sample.user], sample, boot + sample.started, loads[sample.key])
            for sample in look.processes
            if sample.threads
        ]
        self._collector.store(moment, machine, look.busy_share(before), rows)
        self._collector.thin_out(moment)

    def _report_days(self, today: str) -> None:
        """Hand over the sums of days that are over, each once."""
        if today != self._handed_over:
            self._history.fix_days(before=today)
            node = self._doors.settings.computer_id
            if hand_over(self._history, self._doors.reports, node):
                self._handed_over = today

    def _listen(self) -> None:
        address = read_address(self._doors.settings.metrics_listen)
        if self._endpoint is None and address is not None:
            self._endpoint = MetricsEndpoint(address, self._doors.metrics.text)

    def _try(self, what: str, work: Callable[[], None]) -> None:
        """Do something that must not keep the rest from being done; say once when it fails."""
        try:
            work()
        except (SlapOSError, OSError) as error:
            if what not in self._said:
                logger.error("monitoring goes on, but: %s", error)
            self._said[what] = str(error)
        else:
            if self._said.pop(what, ""):
                logger.info("monitoring: %s works again", what)
