"""`slapos node run`: one process that waits for changes and brings them about, for ever."""

import logging
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace

from slapos.node.agent.conductor import Conductor, End, Restarted
from slapos.node.agent.ending import EndableRunner, Ending, Interrupted
from slapos.node.agent.feed import ANSWER_TIME, WAIT, Feed
from slapos.node.agent.measuring import Measuring, count_end
from slapos.node.agent.plan import Ended, Job, Kind, Plan
from slapos.node.agent.pool import Pool
from slapos.node.agent.renewing import Renewing
from slapos.node.agent.sending import Sending
from slapos.node.agent.services import Services
from slapos.node.agent.work import do
from slapos.node.assembly import make_client, make_doors, make_runner, make_supervisor
from slapos.node.build.local_profile import local_path
from slapos.node.doors import Doors
from slapos.node.enrolment.renewal import make_renewal
from slapos.node.monitor.metrics import FEED_CONNECTED, MASTER_ANSWERED
from slapos.node.settings import NodeSettings
from slapos.node.supervise.configuration import write_main
from slapos.protocol.errors import SlapOSError
from slapos.system.memory import share_arenas
from slapos.system.process_lock import process_lock
from slapos.system.runner import SystemRunner
from slapos.system.service_manager import ServiceManager

logger = logging.getLogger(__name__)

#: Seconds that threads get, when the agent ends, to see that their programs have ended.
END_TIME = 2.0


class Agent:
    """Everything that is resident, put together."""

    def __init__(self, settings: NodeSettings) -> None:
        self._settings = settings
        self._ending = Ending()
        # Twice: what runs warm may have to be run cold after all.
        cold = EndableRunner(SystemRunner(), self._ending)
        runner = EndableRunner(make_runner(cold), self._ending)
        self._doors = doors = make_doors(settings, runner)
        self._workers = {
            Kind.INSTANCE: settings.instance_workers,
            Kind.BUILD: settings.build_workers,
            Kind.PROMISE: settings.promise_workers,
            Kind.USAGE: 1,
            Kind.FIREWALL: 1,
        }
        self._manager = ServiceManager(doors.environment)
        self._plan = Plan(
            self._workers,
            doors.identifiers.fraction,
            is_local=lambda url: local_path(url) is not None,
            usage_interval=settings.usage_interval,
        )
        self._pools = {
            kind: Pool(kind, size, self._make_worker, self._start)
            for kind, size in self._workers.items()
        }
        self._conductor = Conductor(
            self._plan, self._pools, doors.clock, self._manager, changed=self._nudge
        )
        self._services = Services(
            self._own_doors(), lambda name: self._conductor.tell(Restarted(name))
        )
        self._feed = Feed(
            make_client(replace(settings, request_timeout=WAIT + ANSWER_TIME)),
            settings,
            self._conductor.tell,
            doors.clock,
            doors.identifiers,
            answered=self._note_answer,
        )

        self._measuring = Measuring(self._own_doors())
        doors.metrics.watch(FEED_CONNECTED, lambda: float(self._feed.is_connected))
        renewal = make_renewal(settings, doors.clock, doors.identifiers)
        self._renewing = Renewing(renewal) if renewal is not None else None
        self._sending = Sending(doors.reports, doors.identifiers)
        doors.reports.hand_over(self._sending.wake)

    def run(self) -> int:
        """Work until SIGTERM or SIGINT; return the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._conductor.tell(End()))
        self._start_supervisor()
        self._feed.start_from_disk()
        if self._renewing is not None:
            self._start("certificates", self._renewing.run)
        self._start("services", self._services.run)
        self._start("feed", self._feed.run)
        self._start("reports", self._sending.run)
        self._start("measuring", self._measuring.run)
        self._start("folders", self._measuring.measure_folders)
        logger.info("at work on %s for %s", self._settings.computer_id, self._settings.master_url)
        self._manager.ready()
        reason = self._conductor.run()
        self._manager.stopping()
        logger.info("ending; the services run on")
        self._feed.end()
        self._services.end()
        self._sending.end()
        self._measuring.end()
        if self._renewing is not None:
            self._renewing.end()
        self._ending.end(self._doors.clock)
        self._conductor.wait_until_idle(END_TIME)
        if reason:
            logger.error("ended: %s", reason)
        return 1 if reason else 0

    def _start_supervisor(self) -> None:
        if self._settings.forbid_supervisord_automatic_launch:
            return
        try:
            self._doors.supervisor.ensure_running()
        except (SlapOSError, OSError) as error:  # it is tried again and again
            logger.error("%s", error)

    def _start(self, name: str, work: Callable[[], None]) -> None:
        """Have a thread work; when a mistake of ours ends it, the agent ends and begins anew."""

        def guarded() -> None:
            try:
                work()
            except Interrupted:
                return
            except Exception as error:
                logger.exception("%s failed", name)
                self._conductor.tell(End(f"{name} failed: {error!r}"))

        threading.Thread(target=guarded, name=name, daemon=True).start()

    def _make_worker(self) -> Callable[[Job], None]:
        doors = self._own_doors()

        def work(job: Job) -> None:
            try:
                ended = do(job, doors)
            except Interrupted:
                self._conductor.tell(Ended(job=job, outcome=None))
                raise
            count_end(ended, doors.metrics)
            self._conductor.tell(ended)

        return work

    def _own_doors(self) -> Doors:
        """Return doors for one thread: what must not be shared is its own."""
        return replace(
            self._doors,
            client=make_client(self._settings),
            supervisor=make_supervisor(self._settings, self._doors.clock),
        )

    def _nudge(self) -> None:
        self._feed.nudge()

    def _note_answer(self) -> None:
        self._doors.metrics.measure(MASTER_ANSWERED, self._doors.now())
        path = self._settings.layout.last_answer
        try:
            path.touch()
        except OSError as error:
            logger.debug("%s cannot be touched: %s", path, error)


def run_agent(settings: NodeSettings) -> int:
    """Run the agent of a node until it is told to end; return the exit status.

    Raises AlreadyRunning, InvalidConfiguration.
    """
    os.umask(0o027)
    share_arenas()
    write_main(settings.layout)
    with process_lock(settings.layout.agent_pidfile):
        return Agent(settings).run()
