"""The one place where the node is put together."""

import os
import sys
from functools import cache, partial

from slapos.node import warm_programs
from slapos.node.doors import Doors
from slapos.node.isolate.firewall import Firewall
from slapos.node.isolate.isolation import make_isolation
from slapos.node.promise.check import ProcessPromiseChecker
from slapos.node.report.journal import Journal
from slapos.node.report.reports import Reports
from slapos.node.report.sender import Sender
from slapos.node.settings import FormatSettings, NodeSettings
from slapos.node.supervise.supervisor import Supervisor
from slapos.node.supervise.watchdog import command_line
from slapos.protocol.http_client import HttpClient, HttpSettings
from slapos.protocol.slap_client import SlapClient
from slapos.system.clock import Clock, SystemClock
from slapos.system.identifier import SystemIdentifiers
from slapos.system.runner import Runner, SystemRunner
from slapos.system.settings import clean_environment, environment
from slapos.system.warm_runner import WarmRunner


@cache
def make_runner(cold: Runner | None = None) -> Runner:
    """Return what runs buildouts and launchers: one for all doors of a process, and all threads.

    `cold` is what runs other programs, and these when they cannot be forked.
    """
    return WarmRunner(
        cold or SystemRunner(),
        python=sys.executable,
        modules=warm_programs.MODULES,
        recognise=partial(warm_programs.recognise, python=sys.executable),
        environment=clean_environment(environment(), installs=False),
        clock=SystemClock(),
    )


def make_doors(settings: NodeSettings, runner: Runner | None = None) -> Doors:
    """Return the doors of a node on this machine; nothing is asked or started yet."""
    runner, clock = runner or make_runner(), SystemClock()
    clean = clean_environment(environment(), installs=False)
    return Doors(
        settings=settings,
        client=make_client(settings),
        reports=make_reports(settings),
        runner=runner,
        clock=clock,
        identifiers=SystemIdentifiers(),
        supervisor=make_supervisor(settings, clock),
        isolation=make_isolation(settings),
        firewall=make_firewall(settings, is_wanted=settings.firewall),
        promises=ProcessPromiseChecker(runner, clean, clock),
        environment=environment(),
        python=sys.executable,
    )


def make_firewall(settings: NodeSettings | FormatSettings, *, is_wanted: bool) -> Firewall:
    """Return what decides who may reach the partitions; only root can have it."""
    clean = clean_environment(environment(), installs=False)
    return Firewall(
        settings.layout,
        SystemRunner(),
        SystemClock(),
        clean,
        is_wanted=is_wanted and os.geteuid() == 0,
    )


def make_reports(settings: NodeSettings) -> Reports:
    """Return what writes down what the master is to be told, with a client of its own."""
    clock, identifiers = SystemClock(), SystemIdentifiers()
    journal = Journal(settings.layout.journal, clock, identifiers)
    sender = Sender(settings.computer_id, journal, make_client(settings), clock)
    return Reports(journal, sender, clock, identifiers)


def make_supervisor(settings: NodeSettings, clock: Clock) -> Supervisor:
    """Return what speaks with supervisord; not to be shared between threads."""
    return Supervisor(
        settings.layout,
        SystemRunner(),
        clock,
        python=sys.executable,
        environment=clean_environment(environment(), installs=False),
        watchdog=command_line(
            sys.executable,
            master_url=settings.master_url,
            node=settings.computer_id,
            instance_root=settings.instance_root,
            certificates=settings.certificate_repository_path,
            authority_file=settings.master_ca_file,
        ),
    )


def make_client(settings: NodeSettings | FormatSettings) -> SlapClient:
    """Return what speaks with the master."""
    return SlapClient(
        HttpClient(
            HttpSettings(
                base_url=settings.master_url,
                timeout=settings.request_timeout,
                key_file=settings.key_file,
                certificate_file=settings.cert_file,
                authority_file=settings.master_ca_file,
            )
        )
    )
