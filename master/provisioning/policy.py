"""What differs between profiles of the master: who may have what, where, and under which name."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy.orm import Session

from slapos.master.catalog import service as catalog
from slapos.master.provisioning import allocation, lookup
from slapos.master.provisioning.model import REFERENCE_LENGTH, SoftwareInstance
from slapos.protocol.states import InstallationState
from slapos.system.clock import Clock


class Policy(Protocol):
    """What the profile decides; a profile is chosen in `app.py`."""

    def place(self, session: Session, clock: Clock, instance: SoftwareInstance) -> None:
        """Give an instance its place: a partition, or for a shared one a host.

        Where an order that cannot be placed waits, the instance says why; where such an order is
        refused, raises NoCapacity.
        """
        ...

    def check_change(
        self, session: Session, clock: Clock, instance: SoftwareInstance, changed: Collection[str]
    ) -> None:
        """Raise Conflict unless a request may change these fields of an instance.

        They are changed already, and are undone with the transaction.
        """
        ...

    def may_stay(self, instance: SoftwareInstance, host: SoftwareInstance) -> bool:
        """Return whether a shared instance may stay where it is."""
        ...

    @property
    def supplies_on_request(self) -> bool:
        """Whether a release is wanted on a node as soon as an instance there is to have it."""
        ...

    def supply(self, session: Session, clock: Clock, instance: SoftwareInstance) -> None:
        """Have the release on the node of an instance that is placed where it is not wanted yet."""
        ...

    @property
    def a_title_has_one_tree(self) -> bool:
        """Whether a tenant cannot have a service and a shared instance of one title."""
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
    a_title_has_one_tree: bool = False

    def place(self, session: Session, clock: Clock, instance: SoftwareInstance) -> None:
        """Take the node that the filter `computer_guid` names, else the default one."""
        node = str(instance.filters.get("computer_guid") or self.default_node)
        if instance.shared:
            instance.host = allocation.find_host(session, instance, node)
            instance.node = instance.host.node
        else:
            allocation.place(session, instance, node)

    def supply(self, session: Session, clock: Clock, instance: SoftwareInstance) -> None:
        """Have the release on the node if the settings say so."""
        if self.supplies_on_request and instance.node is not None:
            catalog.supply(
                session,
                clock,
                node=instance.node.reference,
                url=instance.software_url,
                state=InstallationState.AVAILABLE,
            )

    def check_change(
        self, session: Session, clock: Clock, instance: SoftwareInstance, changed: Collection[str]
    ) -> None:
        """Allow all."""

    def may_stay(self, instance: SoftwareInstance, host: SoftwareInstance) -> bool:
        """Return whether the host is as the shared instance asks now."""
        return allocation.may_stay(instance, host)

    def reference_of(self, session: Session, instance: SoftwareInstance) -> str:
        """Return `<node>-<partition>`; for a shared instance `<title of the tree>_<title>`.

        With a number if another instance has it (`a_b`+`c`, `a`+`b_c`).
        """
        if instance.partition is not None and instance.node is not None:
            reference = f"{instance.node.reference}-{instance.partition.reference}"
        else:
            reference = f"{'' if instance.is_root else instance.tree.title}_{instance.title}"
        candidate, number = reference[:REFERENCE_LENGTH], 1
        while lookup.is_reference_taken(session, candidate):
            number += 1
            candidate = f"{reference}~{number}"
        return candidate

    def tree_reference(self, session: Session) -> str | None:
        """Return none: a tree is known by its title."""
        return None
