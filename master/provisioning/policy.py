"""What differs between profiles of the master: who may have what, where, and under which name."""

from dataclasses import dataclass
from typing import Protocol

from slapos.master.provisioning.model import SoftwareInstance


class Policy(Protocol):
    """What the profile decides; a profile is chosen in `app.py`."""

    def node_for(self, instance: SoftwareInstance) -> str:
        """Return the reference of the node to place an instance on."""
        ...

    @property
    def supplies_on_request(self) -> bool:
        """Whether a release is wanted on a node as soon as an instance of it is placed there."""
        ...

    def reference_of(self, instance: SoftwareInstance) -> str:
        """Return the name, unique in this master, of an instance that has just got its place."""
        ...


@dataclass(frozen=True)
class LocalPolicy:
    """One anonymous user who may have any release at once, on the default node or a named one."""

    default_node: str
    supplies_on_request: bool = False

    def node_for(self, instance: SoftwareInstance) -> str:
        """Return the node that the filter `computer_guid` names, else the default one."""
        return str(instance.filters.get("computer_guid") or self.default_node)

    def reference_of(self, instance: SoftwareInstance) -> str:
        """Return `<node>-<partition>`; for a shared instance `<title of the tree>_<title>`."""
        if instance.partition is not None and instance.node is not None:
            return f"{instance.node.reference}-{instance.partition.reference}"
        return f"{'' if instance.is_root else instance.tree.title}_{instance.title}"
