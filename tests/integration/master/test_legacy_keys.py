"""Keys that the master makes for slapos.core's clients: only where that is set, and for whom."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flask.testing import FlaskClient
from sqlalchemy import select
from werkzeug.test import TestResponse

from slapos.master.app import create_app
from slapos.master.certificates import authorities
from slapos.master.certificates.authorities import Issuing
from slapos.master.certificates.model import IssuedCertificate
from slapos.master.certificates.showing import CERTIFICATE
from slapos.master.certificates.views import BOX
from slapos.master.secret_file import make_secret_file
from slapos.master.settings import Profile, Settings
from slapos.protocol.certificate_request import fingerprint, key_digest
from slapos.protocol.marshal import loads
from slapos.system.identifier import SystemIdentifiers
from tests.fakes import FakeClock
from tests.integration.master.factories import request_form
from tests.integration.master.full import World
from tests.integration.master.test_certificates import by_either

PLACE = {"computer_id": "COMP-1", "computer_partition_id": "slappart0"}
NODE = {"computer_id": "COMP-1"}
RPC_NODE = {"computer_guid": "COMP-1"}

MakeWorld = Callable[[bool], World]


@pytest.fixture
def make_world(
    database_uri: str, settings: Settings, clock: FakeClock, tmp_path: Path
) -> Iterator[MakeWorld]:
    made: list[World] = []

    def make(on: bool) -> World:
        secret = tmp_path / "secret"
        make_secret_file(secret, SystemIdentifiers())
        full = Settings(
            database_url=settings.database_url,
            profile=Profile.FULL,
            secret_file=secret,
            legacy_key_delivery=on,
        )
        world = World(create_app(full, clock, SystemIdentifiers(), by_either))
        made.append(world)
        with world.session() as session:
            authorities.ensure_authority(session, Issuing(clock, world.app.extensions[BOX]))
            session.commit()
        return world

    yield make
    for world in made:
        world.parts.database.close()


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    return make_world(True)


def shows(world: World, certificate: str) -> FlaskClient:
    client = world.app.test_client()
    found = x509.load_pem_x509_certificate(certificate.encode())
    shown: Any = found.public_bytes(serialization.Encoding.DER)
    client.environ_base[CERTIFICATE] = shown
    return client


def order(world: World, title: str = "web") -> str:
    answer = world.as_("P-11").post("/requestComputerPartition", data=request_form(title))
    assert answer.status_code in (200, 408), answer.text
    return world.place(title, "COMP-1", "slappart0")


def rpc(world: World, caller: str, call: str, body: dict[str, Any]) -> TestResponse:
    return world.as_(caller).post(f"/slapos.{call}", json=body)


def read(response: TestResponse) -> dict[str, str]:
    assert response.status_code == 200, response.text
    found: Any = response.get_json() if response.is_json else loads(response.data)
    return {name: str(value) for name, value in found.items()}


def check(made: dict[str, str]) -> None:
    key = serialization.load_pem_private_key(made["key"].encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert isinstance(key.curve, ec.SECP256R1)
    assert key_digest(made["key"]) == fingerprint(made["certificate"])


def test_a_node_gets_a_key_for_the_instance_that_it_holds(world: World) -> None:
    reference = order(world)
    asked = world.as_("COMP-1").get("/getComputerPartitionCertificate", query_string=PLACE)
    by_rpc = rpc(
        world, "COMP-1", "get.v0.software_instance_certificate", {"instance_guid": reference}
    )
    for response in (asked, by_rpc):
        made = read(response)
        check(made)
        found = shows(world, made["certificate"]).get("/v1/instances/" + reference)
        assert found.status_code == 200, found.text


def test_a_node_gets_a_key_from_which_slapos_core_takes_its_reference(world: World) -> None:
    asked = world.as_("COMP-1").post("/generateComputerCertificate", data=NODE)
    by_rpc = rpc(world, "P-21", "post.v0.compute_node_certificate", RPC_NODE)
    for response in (asked, by_rpc):
        made = read(response)
        check(made)
        begin = made["certificate"].find("COMP-")
        assert made["certificate"][begin : made["certificate"].find("/email", begin)] == "COMP-1"
        client = shows(world, made["certificate"])
        assert client.get("/getFullComputerInformation?computer_id=COMP-1").status_code == 200


@pytest.mark.parametrize("wire", ["slap", "rpc"])
def test_a_revoked_certificate_of_a_node_counts_no_more(world: World, wire: str) -> None:
    made = read(world.as_("COMP-1").post("/generateComputerCertificate", data=NODE))
    client = shows(world, made["certificate"])
    if wire == "slap":
        answer = client.post("/revokeComputerCertificate", data=NODE)
    else:
        answer = client.post("/slapos.remove.v0.compute_node_certificate", json=RPC_NODE)
    assert answer.status_code == 200, answer.text
    assert client.get("/getFullComputerInformation?computer_id=COMP-1").status_code == 401
    again = world.as_("P-21").post("/revokeComputerCertificate", data=NODE)
    assert again.status_code == 404


@pytest.mark.parametrize(("caller", "status"), [("P-11", 403), ("P-22", 404), ("COMP-2", 404)])
def test_nobody_else_gets_a_key(world: World, caller: str, status: int) -> None:
    reference = order(world)
    client = world.as_(caller)
    for path in ("/generateComputerCertificate", "/revokeComputerCertificate"):
        assert client.post(path, data=NODE).status_code == status
    answer = client.get("/getComputerPartitionCertificate", query_string=PLACE)
    assert answer.status_code == status, answer.text
    for call, body in (
        ("get.v0.software_instance_certificate", {"instance_guid": reference}),
        ("post.v0.compute_node_certificate", RPC_NODE),
        ("remove.v0.compute_node_certificate", RPC_NODE),
    ):
        assert rpc(world, caller, call, body).status_code == 403
    with world.session() as session:
        assert not session.scalars(select(IssuedCertificate)).all()


def test_keys_are_neither_kept_nor_logged(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    order(world)
    answer = world.as_("COMP-1").get("/getComputerPartitionCertificate", query_string=PLACE)
    secret = read(answer)["key"].splitlines()[1]
    node = read(world.as_("COMP-1").post("/generateComputerCertificate", data=NODE))
    secrets = (secret, node["key"].splitlines()[1])
    with world.session() as session:
        tables = IssuedCertificate.metadata.sorted_tables
        rows = [repr(tuple(row)) for table in tables for row in session.execute(select(table))]
    assert rows
    for each in secrets:
        assert each not in caplog.text
        assert not [row for row in rows if each in row]


def test_without_the_setting_there_are_no_keys_and_slapos_core_goes_on(
    make_world: MakeWorld,
) -> None:
    world = make_world(False)
    reference = order(world)
    answer = world.as_("COMP-1").get("/getComputerPartitionCertificate", query_string=PLACE)
    assert read(answer) == {"key": "", "certificate": ""}
    refused = [
        world.as_("P-21").post("/generateComputerCertificate", data=NODE),
        world.as_("P-21").post("/revokeComputerCertificate", data=NODE),
        rpc(world, "COMP-1", "get.v0.software_instance_certificate", {"instance_guid": reference}),
        rpc(world, "COMP-1", "post.v0.compute_node_certificate", RPC_NODE),
        rpc(world, "COMP-1", "remove.v0.compute_node_certificate", RPC_NODE),
    ]
    for response in refused:
        assert response.status_code == 403
        assert "legacy_key_delivery" in response.text
        assert "slapos node register" in response.text


def _join_token(world: World, title: str) -> str:
    asked = {"title": title, "project": "PROJ-1"}
    answer = world.as_("P-21").post("/v1/nodes/join-tokens", json=asked)
    return str(answer.get_json()["token"])


def _register(world: World, token: str, title: str) -> TestResponse:
    headers = {"X-Access-Token": token}
    client = world.app.test_client()
    return client.post("/Person_requestComputer", data={"title": title}, headers=headers)


def test_slapos_cores_node_registers_with_a_join_token_once(world: World) -> None:
    token = _join_token(world, "edge")
    assert _register(world, token, "another").status_code == 403
    answer = _register(world, token, "edge")
    assert answer.status_code == 200, answer.text
    made = answer.get_json()
    begin = made["certificate"].find("COMP-")
    reference = made["certificate"][begin : made["certificate"].find("/email", begin)]
    assert reference == made["reference"]
    found = x509.load_pem_x509_certificate(made["certificate"].encode())
    key = serialization.load_pem_private_key(made["key"].encode(), None)
    assert found.public_key() == key.public_key()
    begin = made["certificate"].find("-----BEGIN")
    own = shows(world, made["certificate"][begin:])
    assert own.get(f"/getFullComputerInformation?computer_id={reference}").status_code == 200
    assert _register(world, token, "edge").status_code == 403
    assert _register(world, "sj1.nonsense", "edge").status_code == 403


def test_it_registers_nowhere_where_that_is_not_set(make_world: MakeWorld) -> None:
    world = make_world(False)
    assert _register(world, _join_token(world, "edge"), "edge").status_code == 403
