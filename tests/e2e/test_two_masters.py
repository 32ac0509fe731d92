"""Two providers: what is ordered at one runs on a node of the other, over TLS, by a certificate."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from slapos.protocol.certificate_request import make_key, make_request
from slapos.protocol.enrolment_client import EnrolmentClient, Issued
from slapos.protocol.http_client import HttpClient, HttpSettings
from slapos.protocol.messages import PartitionInformation
from slapos.protocol.slap_client import SlapClient
from slapos.protocol.states import InstanceState
from tests.e2e.deployment import until
from tests.e2e.provider import PASSWORD, Person, Provider, provided
from tests.e2e.test_a_day import join_token, offer

pytestmark = pytest.mark.e2e
URL = "https://example.org/software.cfg"


@pytest.fixture
def root() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="slapos-two-", dir="/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


def start(root: Path, name: str) -> Path:
    folder = root / name
    folder.mkdir()
    return folder


@pytest.fixture
def near(root: Path) -> Iterator[Provider]:
    folder = start(root, "near")
    with provided(folder, f"{folder}/near.db", remote_networks="127.0.0.0/8") as made:
        yield made


@pytest.fixture
def far(root: Path) -> Iterator[Provider]:
    folder = start(root, "far")
    with provided(folder, f"{folder}/far.db") as made:
        yield made


def keep(folder: Path, name: str, key: str, issued: Issued) -> tuple[Path, Path]:
    """Write a key and its certificate; return where they are."""
    paths = folder / f"{name}.key", folder / f"{name}.crt"
    for path, text in zip(paths, (key, issued.certificate), strict=True):
        path.write_text(text)
        os.chmod(path, 0o644)  # the test may be root, and the master somebody else
    return paths


class Node:
    """A node of a master that builds and runs nothing, but says that it does."""

    def __init__(self, provider: Provider, token: str) -> None:
        key = make_key()
        plain = HttpClient(HttpSettings(base_url=provider.url, authority_file=provider.authority))
        with closing(plain):
            issued = EnrolmentClient(plain).join(token, "rack", make_request(key, "rack"))
        key_file, certificate_file = keep(provider.root, "rack", key, issued)
        self.reference = issued.reference
        self.http = HttpClient(
            HttpSettings(
                base_url=provider.url,
                authority_file=provider.authority,
                key_file=key_file,
                certificate_file=certificate_file,
            )
        )
        self.client = SlapClient(self.http)
        partition = {"reference": "slappart0", "address_list": [], "tap": {"name": ""}}
        self.client.post_node_configuration(
            {
                "reference": self.reference,
                "address": "127.0.0.1",
                "netmask": "255.0.0.0",
                "partition_list": [partition],
            }
        )

    @property
    def held(self) -> PartitionInformation:
        (partition,) = self.client.node_information(self.reference).partitions
        return partition

    def bring_about(self, state: InstanceState) -> None:
        """Wait until the only partition is to be in a state, and say that it is."""
        until(lambda: self.held.instance_guid and self.held.state is state, f"{state} is wanted")
        self.client.report_available(self.reference, URL)
        self.client.report_state(self.reference, "slappart0", state)


def robot(far: Provider, project: str) -> tuple[Path, Path]:
    """Have a person at the other master, and return her key and certificate."""
    far.person("robot@example.com", "customer", project=project)
    key = make_key()
    with closing(HttpClient(HttpSettings(base_url=far.url, authority_file=far.authority))) as http:
        client = EnrolmentClient(http)
        client.sign_in("robot@example.com", PASSWORD)
        return keep(far.root, "robot", key, client.own_certificate(make_request(key, "robot")))


def reason_of(person: Person) -> str:
    return str(person.trees()["web"]["instances"][0]["reason"])


def connect(near: Provider, far: Provider, theirs: str) -> tuple[str, Person]:
    """Have the other master be a remote node; return it, and a customer who may order on it."""
    key_file, certificate_file = robot(far, theirs)
    admin = near.person("admin@example.com", "administrator")
    ours = admin.ask("POST", "v1/projects", {"title": "ours"})["reference"]
    customer = near.person("customer-1@example.com", "customer", project=ours)
    files = ("--key-file", str(key_file), "--cert-file", str(certificate_file))
    words = ("--project", ours, "--master", far.url, "--project-there", theirs)
    more = ("--master-ca-file", str(far.authority), "--json")
    told = near.command("master", "remote-node", "add", "far", *words, *files, *more)
    remote = str(json.loads(told)["reference"])
    offer(admin, ours, URL, remote)
    return remote, customer


def test_an_order_here_runs_there(near: Provider, far: Provider) -> None:
    boss = far.person("boss@example.com", "administrator")
    theirs = boss.ask("POST", "v1/projects", {"title": "theirs"})["reference"]
    node = Node(far, join_token(boss, theirs, "rack"))
    offer(boss, theirs, URL, node.reference)
    remote, customer = connect(near, far, theirs)
    customer.ask("PATCH", f"v1/remote-nodes/{remote}", {"title": "mine"}, status=403)

    # Ordered here, it runs there, and what it publishes comes back.
    given = customer.order("web", URL, parameters={"colour": "blue"})
    assert (given["computer_guid"], given["compute_partition_id"]) == (remote, "slapremote0")
    until(lambda: node.held.instance_guid, "it is ordered there")
    (title,) = boss.trees()
    assert title.startswith("_remote_PROJ-")
    assert title.endswith(f"_{given['instance_guid']}")
    assert node.held.parameters["colour"] == "blue"
    node.client.publish(node.reference, "slappart0", {"url": "http://far/"})
    node.bring_about(InstanceState.STARTED)
    until(lambda: customer.is_healthy("web"), "it does well")
    until(
        lambda: customer.trees()["web"]["instances"][0]["connection"] == {"url": "http://far/"},
        "what it publishes is known here",
    )

    # Stopped, and started while the other master is away for a while.
    customer.order("web", URL, parameters={"colour": "blue"}, state="stopped")
    node.bring_about(InstanceState.STOPPED)
    until(lambda: customer.is_healthy("web"), "it is stopped")
    far.stop("master")
    customer.order("web", URL, parameters={"colour": "blue"})
    until(lambda: reason_of(customer) == "master_unreachable", "it is said that nobody answers")
    far.start()
    node.bring_about(InstanceState.STARTED)
    until(lambda: customer.is_healthy("web"), "it is started")

    # Destroyed: gone here at once, and there when its node has removed it.
    customer.order("web", URL, state="destroyed")
    assert customer.trees() == {}
    node.bring_about(InstanceState.DESTROYED)
    assert boss.trees() == {}
    shown = customer.ask("GET", f"v1/remote-nodes/{remote}")
    assert (shown["free"], shown["busy"], shown["error"]) == (10, 0, "")
    node.http.close()
