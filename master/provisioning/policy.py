"""What differs between profiles of the master: who may have what, where, and under which name."""

from dataclasses import dataclass
from typing import Protocol

from sqlalchemy.orm import Session

from slapos.master.numbering import next_number
from slapos.master.provisioning import allocation
from slapos.master.provisioning.model import SoftwareInstance


class Policy(Protocol):
    """What the profile decides; a profile is chosen in `app.py`."""

    def place(self, session: Session, instance: SoftwareInstance) -> None:
        """Give an instance its place: a partition, or for a shared one a host.

        Raises NoCapacity where an order that cannot be placed is refused.
        """
        ...

    @property
    def supplies_on_request(self) -> bool:
        """Whether a release is wanted on a node as soon as an instance of it is placed there."""
        ...

    def reference_of(self, session: Session, instance: SoftwareInstance) -> str:
        """Return the name, unique in this master, of an instance that is being made."""
        ...

    def tree_reference(self, session: Session) -> str | None:
        """Return the name of a tree that is being made."""
        ...


@dataclass(frozen=True)
class LocalPolicy:
    """One anonymous user who may have any release at once, on the default node or a named one."""

    default_node: str
    supplies_on_request: bool = False

    def place(self, session: Session, instance: SoftwareInstance) -> None:
        """Take the node that the filter `computer_guid` names, else the default one."""
        node = str(instance.filters.get("computer_guid") or self.default_node)
        if instance.shared:
            instance.host = allocation.find_host(session, instance, node)
            instance.node = instance.host.node
        else:
            allocation.place(session, instance, node)

    def reference_of(self, session: Session, instance: SoftwareInstance) -> str:
        """Return `<node>-<partition>`; for a shared instance `<title of the tree>_<title>`."""
        if instance.partition is not None and instance.node is not None:
            return f"{instance.node.reference}-{instance.partition.reference}"
        return f"{'' if instance.is_root else instance.tree.title}_{instance.title}"

    def tree_reference(self, session: Session) -> str | None:
        """Return none: a tree is known by its title."""
        return None


@dataclass(frozen=True)
class FullPolicy:
    """Many customers: what may be placed where is said by the catalogue."""

    supplies_on_request: bool = False

    def place(self, session: Session, instance: SoftwareInstance) -> None:
        """Leave it waiting for a place."""
        instance.waiting_code = "waiting"
        instance.waiting_reason = "it waits for a place"

    def reference_of(self, session: Session, instance: SoftwareInstance) -> str:
        """Return SOFTINST-n."""
        return f"SOFTINST-{next_number(session)}"

    def tree_reference(self, session: Session) -> str | None:
        """Return HOSTSUBS-n."""
        return f"HOSTSUBS-{next_number(session)}"
