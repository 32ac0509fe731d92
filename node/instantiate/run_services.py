"""Hand etc/run and etc/service to supervisord, or take them back."""

import logging

from slapos.node.doors import Doors
from slapos.node.instantiate.check_folder import check_folder
from slapos.node.instantiate.step import Work
from slapos.node.supervise.supervisor import SupervisorFailed

logger = logging.getLogger(__name__)


def run_services(work: Work, doors: Doors) -> None:
    """Have the partition's services running; those that did not change run on."""
    try:
        doors.supervisor.run_partition(work.reference, work.folder, work.account)
    except SupervisorFailed:
        if doors.settings.forbid_supervisord_automatic_launch or doors.supervisor.is_running():
            raise
        doors.supervisor.ensure_running()  # it was killed: no fault of this instance's
        doors.supervisor.run_partition(work.reference, work.folder, work.account)


def stop_services(work: Work, doors: Doors) -> None:
    """Have none of them running."""
    try:
        doors.supervisor.stop_partition(work.reference)
    except SupervisorFailed:
        if doors.settings.forbid_supervisord_automatic_launch or doors.supervisor.is_running():
            raise
        doors.supervisor.ensure_running()
        doors.supervisor.stop_partition(work.reference)


def keep_services(reference: str, doors: Doors) -> bool:
    """Hand them over again where a crash tore what supervisord reads; return whether it did.

    Without that, none of them would be started after a reboot.
    """
    folder = doors.settings.layout.partition(reference)
    if doors.supervisor.has_file(reference, folder):
        return False
    logger.warning("%s: the configuration of its services is lost, it is written anew", reference)
    doors.supervisor.run_partition(reference, folder, check_folder(folder))
    return True
