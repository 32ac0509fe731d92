"""slapos.core's own node at a full master, over TLS, with keys that the master made for it."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from slapos.protocol.http_client import HttpClient, HttpSettings
from slapos.protocol.slap_client import SlapClient
from tests.conformance.peer_environment import newer_python, peer_environment
from tests.conformance.test_slapos_core_node import Machine, give_away, make_release
from tests.e2e.deployment import until
from tests.e2e.provider import Person, Provider, provided
from tests.e2e.test_a_day import offer

pytestmark = pytest.mark.conformance

CONFIGURATION = """[slapos]
software_root = {folder}/software
instance_root = {folder}/instances
master_url = {url}
computer_id = {reference}
key_file = {folder}/node.key
cert_file = {folder}/node.crt
certificate_repository_path = {folder}/pki
"""


class Node(Machine):
    """slapos.core's node, and the full master that it asks."""

    def __init__(self, folder: Path, programs: Path, master: Provider) -> None:
        super().__init__(folder, programs)
        self.master = master
        self.reference = ""

    def register(self, manager: Person, project: str) -> None:
        """Register by slapos.core's own command, with a token, and write its settings file."""
        asked = {"title": "core", "project": project}
        token = manager.ask("POST", "v1/nodes/join-tokens", asked)["token"]
        written = self.folder / "etc" / "slapos.cfg"
        where = ("--cfg", str(written), "--master-url", self.master.url)
        self.node(
            "register", *where, "--master-url-web", self.master.url[:-1], "--token", token, "core"
        )
        ssl = written.parent / "ssl"
        certificate = (ssl / "certificate").read_text()
        begin = certificate.find("COMP-")
        self.reference = certificate[begin : certificate.find("/email", begin)]
        assert f"computer_id = {self.reference}" in written.read_text()
        (ssl / "key").rename(self.folder / "node.key")
        (ssl / "certificate").rename(self.folder / "node.crt")
        (self.folder / "pki").mkdir(0o700)
        (self.folder / "slapos.cfg").write_text(
            CONFIGURATION.format(folder=self.folder, url=self.master.url, reference=self.reference)
        )

    def client(self) -> SlapClient:
        """Return a client that is this node."""
        return SlapClient(
            HttpClient(
                HttpSettings(
                    base_url=self.master.url,
                    key_file=self.folder / "node.key",
                    certificate_file=self.folder / "node.crt",
                    authority_file=self.master.authority,
                )
            )
        )

    def format(self) -> None:
        """Make a partition, and say so as `format` does, which itself needs global IPv6."""
        partition = self.folder / "instances" / "slappart0"
        partition.mkdir(parents=True)
        partition.chmod(0o750)
        give_away(partition)
        address = {"addr": "127.0.0.1", "netmask": "255.255.255.255"}
        told = {"reference": "slappart0", "address_list": [address], "tap": {"name": "tap0"}}
        about = {"reference": self.reference, "address": "", "netmask": ""}
        self.client().post_node_configuration({**about, "partition_list": [told]})

    def is_free(self) -> bool:
        """Return whether its partition is."""
        (partition,) = self.client().node_information(self.reference).partitions
        return partition.is_free


@pytest.fixture
def node() -> Iterator[Node]:
    python = newer_python()
    if python is None:
        pytest.skip("slapos.core's node needs Python 3.12 or newer, and there is none here")
    folder = Path(tempfile.mkdtemp(prefix="slapos-full-"))
    folder.chmod(0o755)
    programs = peer_environment(python)
    (folder / "provider").mkdir()
    (folder / "node").mkdir()
    try:
        with provided(folder / "provider", "master.db", legacy_key_delivery="true") as master:
            found = Node(folder / "node", programs, master)
            try:
                yield found
            finally:
                found.stop()
    finally:
        shutil.rmtree(folder)


def test_slapos_cores_node_brings_about_what_a_full_master_wants(node: Node) -> None:
    boss = node.master.person("boss@example.com", "administrator")
    project = boss.ask("POST", "v1/projects", {"title": "shop"})["reference"]
    manager = node.master.person("manager-1@example.com", "production_manager", project=project)
    customer = node.master.person("customer-1@example.com", "customer", project=project)
    node.register(manager, project)
    node.format()
    url = make_release(node)
    offer(manager, project, url, node.reference)
    customer.order("web", url)
    until(lambda: not node.is_free(), "the instance has a place")

    node.one_pass("software", "--all")
    node.one_pass("instance", "--all")
    for name in ("slappart0.key", "slappart0.crt"):
        assert "-----BEGIN" in (node.folder / "pki" / name).read_text()
    assert customer.is_healthy("web"), customer.trees()
    until(lambda: "RUNNING" in node.node("status"), "what it runs is running", 30)
