"""Have the partition's certificate on disk, where the node is set up for it."""

from slapos.node.doors import Doors
from slapos.node.enrolment.instance_certificate import keep_instance_certificate
from slapos.node.enrolment.node_certificate import node_credentials
from slapos.node.instantiate.step import StepFailed, Work
from slapos.protocol.errors import NotFound
from slapos.system.files import write_if_changed


def fetch_certificate(work: Work, doors: Doors) -> None:
    """Have `<id>.key` and `<id>.crt`: made here for our master, else as the master has them.

    A master without any gives none.
    """
    folder = doors.settings.certificate_repository_path
    if folder is None:
        return
    try:
        if node_credentials(doors.settings) is not None:
            owner = work.account.owner if work.account.user is not None else None
            keep_instance_certificate(work.wanted, owner, doors)
            return
        key, certificate = doors.client.partition_certificate(
            doors.settings.computer_id, work.reference
        )
    except NotFound as error:
        raise StepFailed(
            f"the master does not know the partition: {error}", remedy="run 'slapos node format'"
        ) from error
    if not folder.is_dir():
        folder.mkdir(mode=0o711, parents=True)
    owner = work.account.owner if work.account.user is not None else None
    for suffix, content in (("key", key), ("crt", certificate)):
        if content:
            write_if_changed(
                folder / f"{work.reference}.{suffix}", content, mode=0o400, owner=owner
            )
