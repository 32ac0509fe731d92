"""Services begin within the limits of their partition: what their child does to itself."""

from slapos.node.isolate.confinement import confinement_file, read_confinement
from slapos.node.layout import Layout

#: The group of the last programs of a partition.
LAST = "-prerm"


def confine(layout: Layout, group: str) -> None:
    """Bind this process by the limits of its partition. Raises CgroupFailed, OSError."""
    confinement = read_confinement(confinement_file(layout, group.removesuffix(LAST)))
    if confinement is None:
        return
    confinement.make()
    confinement.process_limits().bind(0)
