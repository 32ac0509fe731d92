"""Tell the master which instances the partition's recipes requested in their last run."""

from slapos.node.beneath import read_beneath
from slapos.node.doors import Doors
from slapos.node.instantiate.run_buildout import transaction_file
from slapos.node.instantiate.step import Work


def report_requests(work: Work, doors: Doors) -> None:
    """Report the list, where there is one."""
    content = read_beneath(work.folder, transaction_file(work.reference))
    if content is None:
        return
    titles = [line.strip() for line in content.decode("utf-8", "replace").splitlines()]
    # Where that cannot be written, too, the instance itself is not what failed.
    doors.reports.related_instances(work.reference, [title for title in titles if title])
