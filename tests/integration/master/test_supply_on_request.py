"""Whether ordering an instance also has its release built on the node."""

import pytest
from sqlalchemy.orm import Session

from slapos.master.catalog import service as catalog
from slapos.master.nodes import service as nodes
from slapos.master.nodes.service import NodeFormat, PartitionFormat
from slapos.master.provisioning import service as provisioning
from slapos.master.provisioning.policy import LocalPolicy
from slapos.master.provisioning.service import InstanceOrder
from slapos.master.settings import read_settings
from slapos.protocol.errors import InvalidConfiguration
from tests.fakes import FakeClock


def releases_after_requests(
    session: Session, clock: FakeClock, policy: LocalPolicy, *urls: str
) -> list[str]:
    told = NodeFormat(reference="computer", partitions=[PartitionFormat(reference="slappart0")])
    nodes.format_node(session, clock, told)
    for url in urls:
        order = InstanceOrder(title="web", software_url=url)
        provisioning.request_instance(session, clock, policy, order)
    node = nodes.find_node(session, "computer")
    return [found.url for found in catalog.installations(session, node.id)]


def test_a_request_waits_for_somebody_to_supply(session: Session, clock: FakeClock) -> None:
    assert releases_after_requests(session, clock, LocalPolicy("computer"), "a.cfg") == []


def test_a_request_supplies_its_release_where_wanted(session: Session, clock: FakeClock) -> None:
    policy = LocalPolicy("computer", supplies_on_request=True)
    found = releases_after_requests(session, clock, policy, "a.cfg", "a.cfg", "b.cfg")
    assert found == ["a.cfg", "b.cfg"]


def test_the_setting_is_a_truth_value() -> None:
    section = {"database_uri": "x.db", "supply_on_request": "True"}
    assert read_settings({"slapproxy": section}, {}).supply_on_request
    with pytest.raises(InvalidConfiguration, match="true or false"):
        read_settings({"slapproxy": section | {"supply_on_request": "maybe"}}, {})
