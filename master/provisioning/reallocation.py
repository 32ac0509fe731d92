"""Instances of a lost node that their orders allow to be placed elsewhere.

What such an instance leaves behind is an instance of its own that is to be destroyed: the node is
told so when it is back, and the partition is free when it has done so. Its certificates count no
more: where it is now, it gets others, for keys that are made there.
"""

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from slapos.master.certificates import service as certificates
from slapos.master.certificates.authority import SubjectKind
from slapos.master.monitoring.losses import is_lost
from slapos.master.nodes.model import ComputeNode
from slapos.master.provisioning import lookup, waiting
from slapos.master.provisioning.model import TITLE_LENGTH, SoftwareInstance
from slapos.master.provisioning.policy import Policy
from slapos.protocol.states import InstanceState
from slapos.system.clock import Clock

#: The filter by which an order allows it.
ALLOWS = "reallocate"
#: How many are placed elsewhere in one transaction.
PIECE = 50

NODE = select(ComputeNode).where(ComputeNode.reference == bindparam("reference"))
ON_NODE = (
    select(SoftwareInstance)
    .where(
        SoftwareInstance.node_id == bindparam("node_id"),
        SoftwareInstance.partition_id.is_not(None),
        SoftwareInstance.requested_state != InstanceState.DESTROYED,
        SoftwareInstance.id > bindparam("behind"),
    )
    .order_by(SoftwareInstance.id)
    .limit(1000)
)
LOCKED = (
    select(SoftwareInstance)
    .where(SoftwareInstance.id == bindparam("id"))
    .with_for_update(of=SoftwareInstance)
    .execution_options(populate_existing=True)
)


def may_move(instance: SoftwareInstance) -> bool:
    """Return whether an order allows its instance to be placed elsewhere, without its data."""
    allowed = str(instance.filters.get(ALLOWS) or "").lower() in ("1", "true", "yes", "on")
    return allowed and not instance.filters.get("computer_guid")


def empty(session: Session, clock: Clock, policy: Policy, reference: str) -> tuple[int, bool]:
    """Place elsewhere what may move from a node that is lost; return how much, and if that is all.

    Those that find no place wait for one.
    """
    node = session.scalar(NODE, {"reference": reference})
    if node is None or not is_lost(session, node.id):
        return 0, True  # it is back
    count, behind = 0, 0
    while found := session.scalars(ON_NODE, {"node_id": node.id, "behind": behind}).all():
        behind = found[-1].id
        for each in filter(may_move, found):
            if count == PIECE:
                return count, False
            instance = session.scalar(LOCKED, {"id": each.id})
            if instance is not None and instance.node_id == node.id and not instance.is_to_go:
                _move(session, clock, policy, instance)
                count += 1
    return count, True


def _move(session: Session, clock: Clock, policy: Policy, instance: SoftwareInstance) -> None:
    node, partition = instance.node, instance.partition
    assert node is not None
    remnant = SoftwareInstance(
        tree=instance.tree,
        is_root=False,
        title=_free_title(session, instance, node.reference),
        reference=policy.reference_of(session, instance),
        shared=False,
        software_url=instance.software_url,
        software_type=instance.software_type,
        requested_state=InstanceState.DESTROYED,
        parameters={},
        connection={},
        filters={},
        created_at=clock.now(),
        changed_at=clock.now(),
        error="",
        weight=instance.weight,
    )
    instance.leave()
    certificates.revoke_all_of(session, clock, SubjectKind.INSTANCE, instance.id)
    session.flush()
    remnant.node, remnant.partition = node, partition
    session.add(remnant)
    session.flush()
    for shared in lookup.shared_on(session, instance):  # they go with it
        shared.node, shared.connection = None, {}
        shared.mark_changed(clock.now())
    policy.place(session, clock, instance)
    session.flush()
    instance.mark_changed(clock.now())
    if instance.requester is not None:
        instance.requester.mark_changed(clock.now())
    session.flush()
    if instance.waiting_key:
        waiting.look_again(session, instance)


def _free_title(session: Session, instance: SoftwareInstance, node: str) -> str:
    left = f" (left on {node})"
    begin = instance.title[: TITLE_LENGTH - len(left) - 5]
    title, number = f"{begin}{left}", 1
    while lookup.is_child_title_taken(session, instance.tree_id, title):
        number += 1
        title = f"{begin}{left} {number}"
    return title
