"""Instances that wait for a place: why, behind whom, and what has them looked at again."""

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import bindparam, exists, select
from sqlalchemy.orm import Session

from slapos.master.database import constant
from slapos.master.nodes.service import ALLOCATE_INSTANCES
from slapos.master.provisioning.model import SoftwareInstance
from slapos.master.provisioning.remote_title import came_from_elsewhere
from slapos.master.tasks.task import sense


class Why(StrEnum):
    """Why an instance has no place: words for programs."""

    #: No published product of the project has the release, or its product has no such type.
    NO_PRODUCT = "no_product"
    #: No supply allows the release and the type to this customer.
    NO_SUPPLY = "no_supply"
    UNKNOWN_FILTER = "unknown_filter"
    #: No node of the supplies is as the filters say.
    NO_NODE_MATCHES = "no_node_matches"
    NODE_CLOSED = "node_closed"
    #: The tree is already in each network that could be.
    NETWORK_TAKEN = "network_taken"
    #: The release is not on the nodes, and is not installed by need.
    NOT_INSTALLED = "not_installed"
    NO_FREE_PARTITION = "no_free_partition"
    NO_CAPACITY = "no_capacity"
    #: No instance hosts shared ones of this release and type.
    NO_HOST = "no_host"
    #: Where it was is gone.
    NODE_LOST = "node_lost"


#: What somebody may wait for in turn: it ends when something is freed or opened.
IN_TURN = frozenset({Why.NO_FREE_PARTITION, Why.NO_CAPACITY, Why.NODE_CLOSED, Why.NO_HOST})
#: What the task is sensed for: those that wait for one thing, those of a project, those that may
#: be placed on a node (`nodes.service.may_take_more`); each with a key after a colon.
GROUP, PROJECT, NODE = "group", "project", "node"
#: The id of one that is not there yet.
LAST = 2**31 - 1

_BEFORE = (
    SoftwareInstance.waiting_key == bindparam("key"),
    SoftwareInstance.waiting_key != constant(""),  # the index has only those that wait
    SoftwareInstance.waiting_code.in_([constant(code) for code in sorted(IN_TURN)]),
    SoftwareInstance.id < bindparam("before"),
)
#: Whether somebody waits for the same and came before, by the values of `turn`.
IS_BEHIND = exists().where(*_BEFORE)
FIRST_IN_TURN = (
    select(SoftwareInstance.waiting_code, SoftwareInstance.waiting_reason)
    .where(*_BEFORE)
    .order_by(SoftwareInstance.id)
    .limit(1)
)


@dataclass(frozen=True)
class Refusal:
    """Why there is no place now: a word and a sentence with cause and remedy."""

    code: Why
    reason: str


def key_of(instance: SoftwareInstance) -> str:
    """Return a key that all have that wait for the same: the project's id, and a hash.

    It does not look at whose it is: all customers of a project wait in one queue. It is of
    hexadecimal digits alone, which every collation sorts in the same way.
    """
    filters = instance.filters
    told = [instance.shared, instance.software_url, instance.software_type, filters]
    if instance.shared or "mode" in filters:  # it depends on what else is in its tree
        told.append(instance.tree.reference)
    if came_from_elsewhere(instance.tree.title):  # it may not be on each node
        told.append("came from elsewhere")
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    return f"{begin_of_keys(instance.tree.project_id)}{digest[:40]}"


def begin_of_keys(project_id: int) -> str:
    """Return what the keys of a project begin with."""
    return f"{project_id:08x}"


def turn(key: str, instance_id: int | None) -> dict[str, Any]:
    """Return the values that say before whom somebody has to wait for the same."""
    return {"key": key, "before": LAST if instance_id is None else instance_id}


def first_in_turn(session: Session, key: str, instance_id: int | None) -> Refusal | None:
    """Return why the first of those waits that wait for the same and came before."""
    found = session.connection().execute(FIRST_IN_TURN, turn(key, instance_id)).first()
    return None if found is None else Refusal(Why(found.waiting_code), found.waiting_reason)


def for_another_host(session: Session, shared: SoftwareInstance) -> None:
    """Have a shared instance, whose host is going, wait for another one."""
    reason = "the instance that hosted it is gone; another one is being looked for"
    shared.wait(Why.NO_HOST, reason, key_of(shared))
    look_again(session, shared)


def look_again(session: Session, instance: SoftwareInstance) -> None:
    """Have those that wait for the same as an instance looked at once this is committed.

    What it was refused for may have come to be while it was being refused.
    """
    sense(session, ALLOCATE_INSTANCES, f"{GROUP}:{instance.waiting_key}")


def project_has_changed(session: Session, project_id: int) -> None:
    """Have those of a project looked at: its catalogue, or something else of it, has changed."""
    sense(session, ALLOCATE_INSTANCES, f"{PROJECT}:{project_id}")
