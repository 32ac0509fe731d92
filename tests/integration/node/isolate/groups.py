"""The cgroups of this machine, for the tests that need them."""

from pathlib import Path

from slapos.node.isolate.cgroup import group_of
from slapos.node.isolate.confinement import read_confinement
from slapos.node.isolate.isolation import make_isolation
from slapos.node.isolate.limits import NO_LIMITS
from slapos.node.settings import NodeSettings
from tests.integration.node.world import World, until

HIERARCHIES = make_isolation(
    NodeSettings(
        computer_id="-", master_url="-", software_root=Path("/"), instance_root=Path("/")
    )
).hierarchies  # fmt: skip


def remove_groups(world: World) -> None:
    """Stop all, and leave no cgroup of a world behind."""
    world.run("supervisorctl", "stop", "all")
    for path in (world.layout.state / "limits").glob("*.json"):
        known = read_confinement(path)
        assert known is not None
        for group in known.groups:
            until(group.remove, f"{group.folder} is empty")
    for hierarchy in HIERARCHIES:
        node = group_of(hierarchy, world.layout.instance_root, "-", NO_LIMITS).folder.parent
        if node.exists():
            node.rmdir()
