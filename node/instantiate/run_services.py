"""Hand etc/run and etc/service to supervisord, or take them back."""

from slapos.node.doors import Doors
from slapos.node.instantiate.step import Work


def run_services(work: Work, doors: Doors) -> None:
    """Have the partition's services running; those that did not change run on."""
    doors.supervisor.run_partition(work.reference, work.folder, work.account)


def stop_services(work: Work, doors: Doors) -> None:
    """Have none of them running."""
    doors.supervisor.stop_partition(work.reference)
