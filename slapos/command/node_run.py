"""Be this node's resident agent: bring about what the master wants, as soon as it changes.

It waits for changes, builds releases, processes instances in parallel, checks promises, starts
again what ended, reports usage, and removes what is destroyed. Without the master it goes on by
what that said last, also after a reboot. It ends on SIGTERM or Ctrl-C, within seconds; the services
run on, and the next agent takes up what was cut short.

`slapos node install-service` has systemd run it. The other `slapos node` commands may be used while
it runs.

examples:
  slapos node run
  slapos node run --cfg /etc/opt/slapos/slapos.cfg -v

exit status: 0 told to end, 1 failed, 5 root is needed, 10 it runs already
"""

import argparse
import logging

from slapos.command.node_options import add_settings, may_run, node_settings
from slapos.node.agent.agent import run_agent
from slapos.node.condition import lock_holder
from slapos.node.outcome import ExitStatus
from slapos.system.process_lock import AlreadyRunning

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_settings(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the agent."""
    settings = node_settings(arguments)
    if not may_run(settings.root_check):
        return ExitStatus.NOT_ROOT
    try:
        return run_agent(settings)
    except AlreadyRunning:
        holder = lock_holder(settings.layout.agent_pidfile) or "unknown"
        logger.error(
            "the agent of this node runs already, as process %s: one is enough, see 'slapos node "
            "status'",
            holder,
        )
        return ExitStatus.ALREADY_RUNNING
