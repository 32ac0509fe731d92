"""Releases that are files here, and whose folder has moved."""

from pathlib import Path

from sqlalchemy.orm import Session

from slapos.master.catalog import service as catalog
from slapos.master.nodes import service as nodes
from slapos.master.nodes.service import NodeFormat, PartitionFormat
from slapos.master.provisioning import lookup
from slapos.master.provisioning import service as provisioning
from slapos.master.provisioning.local_releases import follow_local_releases
from slapos.master.provisioning.policy import LocalPolicy
from slapos.master.provisioning.service import InstanceOrder
from tests.fakes import FakeClock

CLOCK = FakeClock()
OLD, NEW = Path("/old/place"), Path("/new/place")


def supplied(session: Session, url: str) -> None:
    told = NodeFormat(reference="computer", partitions=[PartitionFormat(reference="slappart0")])
    nodes.format_node(session, CLOCK, told)
    catalog.supply(session, CLOCK, node="computer", url=url, state="available")
    order = InstanceOrder(title="web", software_url=url)
    provisioning.request_instance(session, CLOCK, LocalPolicy("computer"), order)


def urls(session: Session) -> set[str]:
    node = nodes.find_node(session, "computer")
    (instance,) = lookup.instances_on_node(session, node.id)
    (installation,) = catalog.installations(session, node.id)
    return {instance.software_url, installation.url}


def test_a_release_follows_its_folder(session: Session) -> None:
    follow_local_releases(session, CLOCK, OLD)
    supplied(session, "/old/place/web/software.cfg")
    before = lookup.roots(session)[0].changed_at
    assert follow_local_releases(session, CLOCK, NEW) == ["/old/place/web/software.cfg"]
    assert urls(session) == {"/new/place/web/software.cfg"}
    assert lookup.roots(session)[0].changed_at > before
    assert follow_local_releases(session, CLOCK, NEW) == []


def test_what_is_elsewhere_stays(session: Session) -> None:
    follow_local_releases(session, CLOCK, OLD)
    supplied(session, "https://example.org/old/place/software.cfg")
    assert follow_local_releases(session, CLOCK, NEW) == []


def test_a_folder_in_or_around_the_old_one_moves_nothing(session: Session) -> None:
    follow_local_releases(session, CLOCK, OLD)
    supplied(session, "/old/place/web/software.cfg")
    assert follow_local_releases(session, CLOCK, OLD / "web") == []
    assert follow_local_releases(session, CLOCK, OLD) == []
    assert follow_local_releases(session, CLOCK, None) == []


def test_a_release_that_was_left_behind_stays(session: Session, tmp_path: Path) -> None:
    release = tmp_path / "old" / "software.cfg"
    release.parent.mkdir()
    release.touch()
    follow_local_releases(session, CLOCK, release.parent)
    supplied(session, str(release))
    assert follow_local_releases(session, CLOCK, tmp_path / "new") == []
    assert urls(session) == {str(release)}
