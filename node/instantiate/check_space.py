"""See that there is room left on the partition's disk."""

from slapos.node.doors import Doors
from slapos.node.instantiate.step import Work
from slapos.node.space import check_free_space


def check_space(work: Work, doors: Doors) -> None:
    """Refuse to begin on a full disk."""
    least = doors.settings.instance_min_free_space
    check_free_space(work.folder, least, "instance_min_free_space")
