"""Run the release's buildout in the partition, as the partition's user."""

import logging
from pathlib import Path

from slapos.node.buildout_program import buildout_command, buildout_environment
from slapos.node.doors import Doors
from slapos.node.instantiate.hand_over import hand_over
from slapos.node.instantiate.step import StepFailed, WaitsForInstance, Work
from slapos.node.monitor.metrics import BUILDOUTS
from slapos.node.reachability import check_python, check_reachable
from slapos.node.work_log import last_lines, telling_line
from slapos.protocol.prerequisite import read_waiting_sentence
from slapos.system.runner import CommandFailed, CommandTimedOut

logger = logging.getLogger(__name__)


def transaction_file(reference: str) -> str:
    """Return where an instance's recipes note which instances they requested."""
    return f".slapos-request-transaction-{reference}"


def run_buildout(work: Work, doors: Doors) -> None:
    """Run it to its end.

    Raises WaitsForInstance, or StepFailed with the last lines of its output.
    """
    script = _script(work.software())
    check_python(work.account, doors.python)
    check_reachable(work.account, script, "make software_root enterable for its users")
    (work.folder / transaction_file(work.reference)).unlink(missing_ok=True)
    words = buildout_command(script)
    words += ["-D", "-U"] if work.buildout_debug else ["-U"]
    logger.info("%s: instantiating %s", work.reference, work.wanted.title or "it")
    work.log.write(f"running as {work.account.name}: {' '.join(words)}")

    def on_line(line: str) -> None:
        work.log.write(line)
        logger.debug("%s| %s", work.reference, line)

    settings = doors.settings
    try:
        doors.runner.run(
            words,
            cwd=work.folder,
            environment=buildout_environment(
                doors.environment,
                work.folder,
                work.account,
                SLAPGRID_INSTANCE_ROOT=str(settings.instance_root),
            )
            | hand_over(work),
            timeout=settings.partition_timeout or None,
            user=work.account.user,
            on_line=on_line,
            limits=doors.isolation.process_limits(work.reference),
        )
    except CommandTimedOut as error:
        doors.metrics.count(BUILDOUTS, "failed")
        raise StepFailed(
            f"its buildout was ended after {settings.partition_timeout:g} s",
            remedy="if it needs longer, raise partition_timeout in [slapos]",
            output=last_lines(error.output),
        ) from error
    except CommandFailed as error:
        output = last_lines(error.output)
        if waiting := read_waiting_sentence(telling_line(output)):
            doors.metrics.count(BUILDOUTS, "waiting")
            raise WaitsForInstance(waiting) from error
        doors.metrics.count(BUILDOUTS, "failed")
        raise StepFailed(
            f"its buildout failed with status {error.status}" if error.status else str(error),
            remedy=_remedy(output, script),
            output=output,
        ) from error
    doors.metrics.count(BUILDOUTS, "done")


def _script(software: Path) -> Path:
    return software / "bin" / "buildout"


def _remedy(output: str, script: Path) -> str:
    if "No module named" in output:
        return f"{script} may be of an older installation: 'slapos node software --force'"
    return "it is tried again by a later 'slapos node instance', with --now at once"
