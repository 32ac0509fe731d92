"""The states that travel between master and node. This module imports nothing of ours."""

from enum import StrEnum


class InstanceState(StrEnum):
    """What the owner wants of an instance, and what a node reports of it."""

    STARTED = "started"
    STOPPED = "stopped"
    DESTROYED = "destroyed"


class InstallationState(StrEnum):
    """What is wanted of a software release on a node."""

    AVAILABLE = "available"
    DESTROYED = "destroyed"


class BuildState(StrEnum):
    """How far a node is with a software release."""

    BUILDING = "building"
    AVAILABLE = "available"
    DESTROYED = "destroyed"
    ERROR = "error"
