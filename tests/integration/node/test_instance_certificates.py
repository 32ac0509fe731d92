"""A node with certificates, and its instances: the agent and the commands, over real TLS."""

import os
import stat
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from slapos.node.enrolment.join import JoinOrder, join
from slapos.node.settings import read_node_settings
from slapos.protocol.join_token import JoinToken
from slapos.protocol.messages import PartitionInformation
from slapos.protocol.states import InstanceState
from slapos.system.clock import SystemClock
from tests.integration.node.fake_authority import DAY, FakeCertifyingMaster, uri_of
from tests.integration.node.world import IS_ROOT, NOBODY, World, new_world, until

ASK = "v1/nodes/node/partitions/slappart0/certificates"


@pytest.fixture
def master() -> FakeCertifyingMaster:
    return FakeCertifyingMaster(node="node")


@pytest.fixture
def certified(master: FakeCertifyingMaster) -> Iterator[World]:
    """A world whose node has joined, and whose master knows an instance."""
    with new_world(master) as world:
        enter(world, master, age=timedelta())
        master.instances["slappart0"] = "SOFTINST-3"
        world.release(world.installing("web"))
        order(world)
        yield world


def enter(world: World, master: FakeCertifyingMaster, *, age: timedelta) -> None:
    world.configure(master_url="", computer_id="", poll_interval="0.2")
    master.age = age
    token = JoinToken.parse(master.new_token())
    join(
        JoinOrder(
            master_url=master.url, token=token, name="edge-1", configuration=world.configuration
        ),
        SystemClock(),
    )
    master.age = timedelta()
    master.asked_by.clear()


def order(world: World, instance: str = "SOFTINST-3", **more: object) -> None:
    world.master.partitions["slappart0"] = PartitionInformation(
        node="node",
        reference="slappart0",
        state=InstanceState(str(more.pop("state", "started"))),
        software_url="http://example.com/hello/software.cfg",
        parameters={"timestamp": "1", "instance_title": "a title", **more},
        instance_guid=instance,
        filter={},
    )


def files(world: World) -> tuple[Path, Path]:
    folder = read_node_settings(world.configuration, {}).certificate_repository_path
    assert folder is not None
    return folder / "slappart0.key", folder / "slappart0.crt"


def certificate_of(world: World) -> x509.Certificate:
    return x509.load_pem_x509_certificate(files(world)[1].read_bytes())


def passed(world: World, *words: str) -> None:
    done = world.run("instance", *words)
    assert done.returncode == 0, done.stdout


def asked(master: FakeCertifyingMaster) -> int:
    return sum(call == ASK for call, _ in master.asked_by)


def test_an_instance_gets_a_key_that_is_made_here_and_a_certificate(
    certified: World, master: FakeCertifyingMaster
) -> None:
    passed(certified)
    key, certificate = files(certified)
    assert uri_of(certificate_of(certified)) == "slapos:instance:SOFTINST-3"
    profile = (certified.partition() / "buildout.cfg").read_text()
    assert f"\nkey-file = {key}\ncert-file = {certificate}\n" in profile
    assert f"\nkey_file = {key}\ncert_file = {certificate}\n" in profile
    for path in (key, certificate):
        assert stat.S_IMODE(path.stat().st_mode) == 0o400
        if IS_ROOT:
            assert path.stat().st_uid == NOBODY.pw_uid
    # The master is asked once, by the node, and everything that is asked shows who asks.
    assert asked(master) == 1
    passed(certified, "--force")
    assert asked(master) == 1
    assert {who for _, who in master.asked_by} == {"slapos:node:node"}


def test_another_instance_in_the_partition_gets_another_key(
    certified: World, master: FakeCertifyingMaster
) -> None:
    passed(certified)
    before = files(certified)[0].read_bytes()
    master.instances["slappart0"] = "SOFTINST-4"
    order(certified, "SOFTINST-4", timestamp="2")
    passed(certified)
    assert uri_of(certificate_of(certified)) == "slapos:instance:SOFTINST-4"
    assert files(certified)[0].read_bytes() != before


def test_the_certificate_of_an_instance_is_renewed_and_its_key_stays(
    certified: World, master: FakeCertifyingMaster
) -> None:
    master.age = 10 * DAY
    passed(certified)
    master.age = timedelta()
    key, old = files(certified)[0].read_bytes(), certificate_of(certified)
    passed(certified)
    assert certificate_of(certified).not_valid_after_utc > old.not_valid_after_utc + 9 * DAY
    assert files(certified)[0].read_bytes() == key
    assert stat.S_IMODE(files(certified)[1].stat().st_mode) == 0o400
    assert asked(master) == 2


def test_the_key_goes_with_the_instance(certified: World) -> None:
    passed(certified)
    order(certified, state="destroyed", timestamp="2")
    assert certified.run("report").returncode == 0
    assert os.listdir(files(certified)[0].parent) == []


def test_an_instance_that_the_master_does_not_know_here_gets_none(
    certified: World, master: FakeCertifyingMaster
) -> None:
    master.instances.clear()
    done = certified.run("instance")
    assert done.returncode == 1
    assert "the master does not know the partition" in done.stdout
    assert not files(certified)[1].exists()


def test_the_agent_renews_while_it_works_and_goes_on_by_the_new_certificate(
    certified: World, master: FakeCertifyingMaster
) -> None:
    enter(certified, master, age=10 * DAY)
    old = master.issued[-1].serial_number
    with certified.agent() as agent:
        until(lambda: agent.said("the certificate is renewed"), "it renews")
        until(lambda: "startedComputerPartition slappart0" in certified.master.calls(), "it works")
        master.revoked.add(old)  # from now on only the new one counts
        seen = len(master.asked_by)
        until(lambda: len(master.asked_by) > seen + 3, "it goes on asking")
        assert {who for _, who in master.asked_by[seen + 1 :]} == {"slapos:node:node"}
        assert agent.end() == 0


def test_an_agent_that_slept_past_the_end_of_its_certificate_comes_back(
    certified: World, master: FakeCertifyingMaster
) -> None:
    enter(certified, master, age=20 * DAY)
    with certified.agent() as agent:
        until(lambda: "startedComputerPartition slappart0" in certified.master.calls(), "it works")
        assert agent.end() == 0


def test_the_doctor_and_the_status_say_until_when_certificates_count(
    certified: World, master: FakeCertifyingMaster
) -> None:
    passed(certified)
    end = master.issued[0].not_valid_after_utc.date()
    told = certified.run("doctor").stdout
    assert f"until {end}" in told
    assert "of 1 certificates of instances" in told
    assert f"certificate: until {end}" in certified.run("status").stdout
