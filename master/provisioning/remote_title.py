"""What a tree is called on another master that is ordered there for an instance of this one."""

import re

_TITLE = re.compile(r"_remote_[A-Z]+-\d+_[A-Z]+-\d+")


def title_elsewhere(project: str, instance: str) -> str:
    """Return the title for an instance, by its reference and that of its project."""
    return f"_remote_{project}_{instance}"


def came_from_elsewhere(title: str) -> bool:
    """Return whether a tree was ordered by another master for an instance of its own.

    A local master in between has put the name of who asked in front of the title.
    """
    return _TITLE.search(title) is not None
