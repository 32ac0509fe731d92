"""What `request --wait` and `service destroy --wait` share: wait, show, and say how it ended."""

import argparse
import shlex
import sys
from typing import Any

from slapos.command.client_settings import ClientSettings
from slapos.command.log_view import BUILD_LOG, INSTANCE_LOG, instance_logs
from slapos.command.tree_view import view_for
from slapos.command.tree_watch import TreeReader, Verdict, Waited, wait_for
from slapos.protocol.tree_status import InstanceStatus, Phase
from slapos.system.clock import SystemClock
from slapos.system.settings import environment

#: Seconds that --wait waits unless told otherwise: building a release may take long.
DEFAULT_TIMEOUT = 3600.0
EXIT_STATUS = {Verdict.HEALTHY: 0, Verdict.GONE: 0, Verdict.FAILED: 1, Verdict.TIMED_OUT: 2}


def add_wait_arguments(parser: argparse.ArgumentParser, until: str) -> None:
    """Add --wait and --timeout."""
    parser.add_argument("--wait", action="store_true", help=f"wait until {until}")
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=DEFAULT_TIMEOUT,
        metavar="SECONDS",
        help="the longest to wait (default: %(default)g)",
    )


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds to wait")
    return seconds


def wait(tree: TreeReader, arguments: argparse.Namespace, *, until_gone: bool = False) -> Waited:
    """Wait, showing on stderr what changes."""
    quiet = bool(arguments.quiet)
    view = view_for(sys.stderr, environment(), quiet=quiet)
    try:
        return wait_for(tree, view, SystemClock(), timeout=arguments.timeout, until_gone=until_gone)
    except KeyboardInterrupt:
        if not quiet:
            title = shlex.quote(arguments.reference)
            print(
                "what was asked goes on without this command: "
                f"`slapos service info {title}` shows how",
                file=sys.stderr,
            )
        raise


def explain(waited: Waited, title: str, settings: ClientSettings) -> str:
    """Return what to tell when waiting did not end well: which instance, why, and where to look."""
    how = {
        Verdict.TIMED_OUT: f"{title!r}: time is up after {waited.seconds:.0f} s",
        Verdict.FAILED: f"{title!r} has failed, and its node goes on trying",
    }
    lines = [how[waited.verdict] if waited.tree else f"{how[waited.verdict]}, without any answer"]
    for instance in waited.tree.instances if waited.tree else ():
        if instance.phase is not Phase.HEALTHY:
            lines += _trouble(instance, title, settings)
    return "\n".join(lines)


def _trouble(instance: InstanceStatus, title: str, settings: ClientSettings) -> list[str]:
    place = f" ({instance.partition} on {instance.node})" if instance.partition else ""
    said = instance.message or instance.reason or "nothing is known of why"
    said = said.strip().replace("\n", "\n      ")
    verb = "has" if instance.phase is Phase.FAILED else "is"
    lines = [f"  {instance.title}{place} {verb} {instance.phase}: {said}"]
    if instance.partition:
        # The log of what it was at last: of its build until it is built.
        built = instance.phase is not Phase.BUILDING and instance.reason != "build_failed"
        where = (instance.node, instance.partition, instance.software_url)
        wanted = INSTANCE_LOG if built else BUILD_LOG
        logs = instance_logs(settings, instance.title, *where)
        lines += [f"    log: {log.path}" for log in logs if log.relative == wanted]
        words = shlex.join([title, "--instance", instance.title])
        lines.append(f"    more: slapos service logs {words}")
    return lines


def outcome(waited: Waited) -> dict[str, Any]:
    """Return how waiting ended, for programs."""
    return {
        "verdict": waited.verdict,
        "seconds": waited.seconds,
        "timings": waited.timings,
        "tree": waited.tree.to_json() if waited.tree else None,
    }
