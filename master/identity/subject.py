"""What rights go by: of which kind something is, and whose."""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """The kinds of things that somebody may have rights on; its words are said in errors."""

    PERSON = "person"
    ORGANISATION = "organisation"
    PROJECT = "project"
    MEMBERSHIP = "membership"
    INVITATION = "invitation"
    TOKEN = "token"
    CERTIFICATE = "certificate"
    AUTHORITY = "authority"
    NODE = "compute node"
    JOIN_TOKEN = "join token"
    NETWORK = "network"
    INSTALLATION = "software installation"
    PRODUCT = "software product"
    SUPPLY = "allocation supply"
    #: One that is disabled, or for one customer.
    PRIVATE_SUPPLY = "private allocation supply"
    INSTANCE_NODE = "instance node"
    REMOTE_NODE = "remote node"
    TREE = "instance tree"
    INSTANCE = "instance"
    TASK = "task"
    AUDIT = "audit log"
    WEBHOOK = "webhook"


@dataclass(frozen=True)
class Subject:
    """What a right is asked for: ids of what it belongs to, None where it belongs to none.

    `node_id` is the node itself, or the one that holds it; `tree_id` its instance tree; `host_id`
    the instance that hosts a shared one; `instance_id` the instance itself.
    """

    kind: Kind
    name: str
    project_id: int | None = None
    owner_id: int | None = None
    node_id: int | None = None
    tree_id: int | None = None
    host_id: int | None = None
    instance_id: int | None = None
