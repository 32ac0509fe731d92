"""What the master says of how a service is doing."""

import pytest

from slapos.master.catalog import service as catalog
from slapos.master.provisioning import reports
from slapos.master.provisioning import service as provisioning
from slapos.master.provisioning.model import SoftwareInstance
from slapos.master.provisioning.status import access_status, instance_status, tree_status
from slapos.protocol.states import BuildState, InstanceState
from slapos.protocol.tree_status import InstanceStatus, Phase, TreeStatus
from tests.fakes import FakeClock
from tests.integration.master.factories import NODE, URL, Master

STARTED, STOPPED, DESTROYED = InstanceState


@pytest.fixture
def instance(master: Master) -> SoftwareInstance:
    master.format(2)
    return master.request()


def status(master: Master, instance: SoftwareInstance) -> tuple[Phase, str]:
    found: InstanceStatus = instance_status(master.session, instance)
    return found.phase, found.reason


def report(master: Master, instance: SoftwareInstance, state: InstanceState) -> None:
    reports.report_state(master.session, master.clock, instance, state)


def supply(master: Master, *reported: BuildState, message: str = "") -> None:
    catalog.supply(master.session, master.clock, node=NODE, url=URL, state="available")
    for state in reported:
        catalog.report(
            master.session, master.clock, node=NODE, url=URL, state=state, message=message
        )


def test_the_way_of_an_instance(master: Master, instance: SoftwareInstance) -> None:
    assert status(master, instance) == (Phase.BUILDING, "not_supplied")
    supply(master)
    assert status(master, instance) == (Phase.BUILDING, "not_built")
    supply(master, BuildState.BUILDING)
    assert status(master, instance) == (Phase.BUILDING, "building")
    supply(master, BuildState.ERROR, message="no compiler")
    assert status(master, instance) == (Phase.FAILED, "build_failed")
    assert instance_status(master.session, instance).message == "no compiler"
    supply(master, BuildState.AVAILABLE)
    assert status(master, instance) == (Phase.INSTANTIATING, "not_processed")
    report(master, instance, STARTED)
    assert status(master, instance) == (Phase.HEALTHY, "")
    master.request(state=DESTROYED)
    assert status(master, instance) == (Phase.DESTROYING, "not_removed")


@pytest.mark.parametrize(
    ("days", "reason"),
    [("7", "kept"), (0, "not_removed"), ("x", "not_removed"), ("1e99", "not_removed")],
)
def test_data_that_is_kept_after_the_end_is_told_until_when(
    master: Master, days: object, reason: str
) -> None:
    master.format(1)
    kept = master.request(filters={"retention_delay": days})
    master.request(state=DESTROYED, filters={"retention_delay": days})
    assert status(master, kept) == (Phase.DESTROYING, reason)
    message = instance_status(master.session, kept).message
    assert ("keeps its data until 2026-" in message) == (reason == "kept")


def test_an_instance_whose_release_is_built_anew_is_not_ready(
    master: Master, instance: SoftwareInstance
) -> None:
    supply(master, BuildState.AVAILABLE)
    report(master, instance, STARTED)
    catalog.supply(master.session, master.clock, node=NODE, url=URL, state="destroyed")
    assert status(master, instance) == (Phase.HEALTHY, "")
    supply(master)
    assert status(master, instance)[0] is Phase.BUILDING
    supply(master, BuildState.AVAILABLE)
    assert status(master, instance) == (Phase.HEALTHY, "")


def test_what_fails_is_told_with_its_reason(master: Master, instance: SoftwareInstance) -> None:
    supply(master, BuildState.AVAILABLE)
    reports.report_error(
        master.session, master.clock, instance, "Promise 'port' failed with: closed"
    )
    assert status(master, instance) == (Phase.PROMISING, "promise_failed")
    reports.report_error(master.session, master.clock, instance, "buildout ended with 1")
    assert status(master, instance) == (Phase.FAILED, "instance_failed")
    provisioning.bang(master.session, master.clock, instance.tree)
    assert status(master, instance) == (Phase.INSTANTIATING, "retrying")
    assert "buildout ended with 1" in instance_status(master.session, instance).message
    report(master, instance, STARTED)
    assert status(master, instance) == (Phase.HEALTHY, "")


def test_an_instance_that_waits_for_another_one_has_not_failed(
    master: Master, instance: SoftwareInstance
) -> None:
    supply(master, BuildState.AVAILABLE)
    waiting = "waiting for database: not ready yet, it has not published url"
    reports.report_error(master.session, master.clock, instance, waiting)
    assert status(master, instance) == (Phase.INSTANTIATING, "waiting")
    assert instance_status(master.session, instance).message == waiting
    provisioning.bang(master.session, master.clock, instance.tree)
    assert status(master, instance) == (Phase.INSTANTIATING, "retrying")
    assert instance_status(master.session, instance).message == waiting


def test_a_change_after_the_report_is_yet_to_be_brought_about(
    master: Master, instance: SoftwareInstance
) -> None:
    """Although the clock stands still."""
    supply(master, BuildState.AVAILABLE)
    report(master, instance, STARTED)
    master.request(parameters={"a": "b"})
    assert status(master, instance) == (Phase.INSTANTIATING, "not_processed")
    report(master, instance, STARTED)
    master.request(parameters={"a": "b"}, state=STOPPED)
    assert status(master, instance)[0] is Phase.INSTANTIATING
    report(master, instance, STOPPED)
    assert status(master, instance)[0] is Phase.HEALTHY


def test_a_report_about_an_older_timestamp_does_not_settle(
    master: Master, instance: SoftwareInstance
) -> None:
    supply(master, BuildState.AVAILABLE)
    seen = instance.changed_at
    master.request(parameters={"a": "b"})
    reports.report_state(master.session, master.clock, instance, STARTED, about=seen)
    assert status(master, instance)[0] is Phase.INSTANTIATING


def test_a_shared_instance_does_as_its_host_does(
    master: Master, instance: SoftwareInstance
) -> None:
    supply(master, BuildState.AVAILABLE)
    shared = master.request("s", shared=True)
    assert status(master, shared)[0] is Phase.INSTANTIATING
    report(master, instance, STARTED)
    assert status(master, shared)[0] is Phase.HEALTHY
    reports.report_error(master.session, master.clock, shared, "bad name")
    assert status(master, shared) == (Phase.FAILED, "instance_failed")
    assert status(master, instance)[0] is Phase.HEALTHY
    report(master, instance, STARTED)
    assert status(master, shared)[0] is Phase.HEALTHY


def test_a_shared_instance_without_a_host_waits_for_one(
    master: Master, instance: SoftwareInstance
) -> None:
    shared = master.request("s", shared=True)
    master.request(state=DESTROYED)
    report(master, instance, DESTROYED)
    assert status(master, shared) == (Phase.ALLOCATING, "no_host")


def test_a_node_is_told_what_it_said_last(master: Master, instance: SoftwareInstance) -> None:
    assert access_status(instance) == "#error no data found for computer-slappart0"
    report(master, instance, STARTED)
    assert access_status(instance) == "#access Instance correctly started"
    reports.report_error(master.session, master.clock, instance, "x" * 100 + "the end")
    assert access_status(instance) == "#error " + "x" * 73 + "the end"


def test_a_tree_is_healthy_when_all_of_it_is(
    master: Master, instance: SoftwareInstance, clock: FakeClock
) -> None:
    supply(master, BuildState.AVAILABLE)
    child = master.request("a", requester=instance, parameters={"port": 1})
    report(master, instance, STARTED)
    found = tree_status(master.session, instance.tree)
    assert [each.title for each in found.instances] == ["root", "a"]
    assert not found.healthy
    clock.advance(5)
    report(master, child, STARTED)
    found = tree_status(master.session, instance.tree)
    assert found.healthy
    assert found.instances[1].since == "2026-03-01T12:00:05+00:00"
    assert found.instances[1].parent == "computer-slappart0"
    assert TreeStatus.from_json(found.to_json()) == found
