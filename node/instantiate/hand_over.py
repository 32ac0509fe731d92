"""Give a partition's recipes what the node knows of it: so they need not ask the master."""

from slapos.node.instantiate.step import Work
from slapos.protocol.marshal import dumps
from slapos.system.files import write_if_changed

FILE = ".slapos-partition-information"
#: What names the file in the environment of a buildout; recipes/connection.py reads it.
VARIABLE = "SLAPOS_PARTITION_INFORMATION"


def hand_over(work: Work) -> dict[str, str]:
    """Write what the master said of the partition when it gave the order that is being applied.

    Readable for the partition's user and nobody else. Returns the environment that names it, empty
    where the master said too little: then the recipes ask. Nothing is synced, since the file is
    made anew for each run.
    """
    path = work.folder / FILE
    if work.wanted.instance_guid is None:
        path.unlink(missing_ok=True)
        return {}
    owner = (0, work.account.gid) if work.account.user is not None else None
    document = dumps(work.wanted.to_marshalled())
    write_if_changed(path, document, mode=0o640, owner=owner, synced=False)
    return {VARIABLE: str(path)}
