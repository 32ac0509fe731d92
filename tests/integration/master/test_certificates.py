"""Joining, certificates and whom they show, over HTTP; environ plays the TLS server's part."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from flask import request
from flask.testing import FlaskClient
from sqlalchemy import select
from werkzeug.test import TestResponse

from slapos.master.app import create_app
from slapos.master.audit.model import Act, AuditEntry
from slapos.master.certificates import authorities
from slapos.master.certificates import service as certificates
from slapos.master.certificates.authorities import Issuing
from slapos.master.certificates.authority import Authority, SubjectKind
from slapos.master.certificates.model import IssuedCertificate, JoinToken
from slapos.master.certificates.showing import CERTIFICATE, authenticate
from slapos.master.certificates.views import BOX
from slapos.master.identity import attempts
from slapos.master.monitoring.model import NodeLoss
from slapos.master.nodes.model import ComputeNode
from slapos.master.nodes.service import INVALIDATE_CLOSED_NODES
from slapos.master.nodes.tasks import TASKS as NODE_TASKS
from slapos.master.provisioning import reallocation
from slapos.master.secret_file import make_secret_file
from slapos.master.settings import Profile, Settings
from slapos.master.tasks.task import Turn
from slapos.protocol.certificate_request import fingerprint, is_vouched, make_key, make_request
from slapos.protocol.join_token import JoinToken as TokenText
from slapos.protocol.marshal import dumps
from slapos.system.identifier import SystemIdentifiers
from tests.fakes import FakeClock
from tests.integration.master.factories import request_form
from tests.integration.master.full import HEADER, World, by_header

NODE = "/getFullComputerInformation?computer_id="


def by_either(session: Any, clock: Any) -> Any:
    """As a full master does it, and people as tests say it."""
    if HEADER in request.headers:
        return by_header(session, clock)
    return authenticate(session, clock)


@pytest.fixture
def world(
    database_uri: str, settings: Settings, clock: FakeClock, tmp_path: Path
) -> Iterator[World]:
    secret = tmp_path / "secret"
    make_secret_file(secret, SystemIdentifiers())
    settings = Settings(
        database_url=settings.database_url, profile=Profile.FULL, secret_file=secret
    )
    app = create_app(settings, clock, SystemIdentifiers(), by_either)
    world = World(app)
    with world.session() as session:
        authorities.ensure_authority(session, issuing(world))
        session.commit()
    yield world
    app.extensions["slapos"].database.close()


def issuing(world: World) -> Issuing:
    return Issuing(world.parts.clock, world.app.extensions[BOX])


def token(world: World, title: str = "edge", caller: str = "P-21", project: str = "PROJ-1") -> str:
    asked = {"title": title, "project": project}
    response = world.as_(caller).post("/v1/nodes/join-tokens", json=asked)
    assert response.status_code == 201, response.text
    text: str = response.get_json()["token"]
    assert text in response.get_json()["command"]
    return text


def join(world: World, text: str, key: str, name: str = "edge") -> TestResponse:
    asked = {"token": text, "name": name, "certificate_request": make_request(key, name)}
    return world.app.test_client().post("/v1/nodes/join", json=asked)


def shows(world: World, certificate: str) -> FlaskClient:
    """Return a client that has shown a certificate to our TLS server."""
    client = world.app.test_client()
    found = x509.load_pem_x509_certificate(certificate.encode())
    shown: Any = found.public_bytes(serialization.Encoding.DER)
    client.environ_base[CERTIFICATE] = shown
    return client


@pytest.fixture
def joined(world: World) -> dict[str, Any]:
    key = make_key()
    answer: dict[str, Any] = join(world, token(world), key).get_json()
    return {**answer, "key": key}


def error_of(response: TestResponse) -> tuple[int, str]:
    return response.status_code, response.get_json()["error"]


def test_each_authority_vouches_for_all_of_them(world: World) -> None:
    with world.session() as session:
        authorities.rotate(session, issuing(world))
        session.commit()
    told = world.app.test_client().get("/v1/authority").get_json()
    both, signatures = told["certificates"], told["signatures"]
    assert [is_vouched(both, *each) for each in zip(both, signatures, strict=True)] == [True] * 2
    assert not is_vouched([*both, both[0]], both[0], signatures[0])
    assert not is_vouched(both, both[0], signatures[1])


def test_a_machine_joins_with_a_token_and_is_that_node(world: World) -> None:
    text, key = token(world), make_key()
    (authority,) = world.app.test_client().get("/v1/authority").get_json()["certificates"]
    assert TokenText.parse(text).is_of(fingerprint(authority))
    response = join(world, text, key)
    assert response.status_code == 201, response.text
    answer = response.get_json()
    assert answer["project"] == "PROJ-1"
    assert answer["authority"] == authority
    client = shows(world, answer["certificate"])
    assert client.get(f"{NODE}{answer['reference']}").status_code == 200
    assert client.get(f"{NODE}COMP-1").status_code == 404


def test_a_join_that_is_repeated_with_the_same_key_is_the_same_node(world: World) -> None:
    text, key = token(world), make_key()
    first, second = join(world, text, key), join(world, text, key)
    assert first.get_json()["reference"] == second.get_json()["reference"]
    other = join(world, text, make_key())
    assert error_of(other) == (403, "token_invalid")


@pytest.mark.parametrize("case", ["another name", "too late", "unknown"])
def test_a_token_is_good_for_what_it_was_made_for_only(
    world: World, clock: FakeClock, case: str
) -> None:
    text, name = token(world), "edge"
    if case == "another name":
        name = "other"
    elif case == "too late":
        clock.advance(16 * 60)
    else:
        text = text.replace("sj1.", "sj1.x")
    assert error_of(join(world, text, make_key(), name)) == (403, "token_invalid")


def refusals(world: World) -> list[tuple[str, str, str]]:
    with world.session() as session:
        entries = session.scalars(
            select(AuditEntry).where(AuditEntry.act == Act.REFUSE).order_by(AuditEntry.id)
        )
        return [(e.object_kind, e.object, e.changes["reason"][1]) for e in entries]


def test_join_tokens_that_are_used_or_refused_are_written_down(world: World) -> None:
    text = token(world)
    assert error_of(join(world, "sj1.nonsense", make_key()))[1] == "token_invalid"
    assert join(world, text, make_key()).status_code == 201
    assert error_of(join(world, text, make_key()))[1] == "token_invalid"
    assert refusals(world) == [
        ("join token", "unknown", "token_invalid"),
        ("join token", "edge", "token_invalid"),
    ]
    with world.session() as session:
        used = session.scalars(
            select(AuditEntry).where(
                AuditEntry.object_kind == "join token", AuditEntry.act == Act.CHANGE
            )
        ).one()
    assert used.changes["used_at"][0] is None
    assert used.project_id == 1


def test_guessing_join_tokens_is_slowed_down(world: World) -> None:
    guesser = world.app.test_client()
    guesser.environ_base["REMOTE_ADDR"] = "192.0.2.1"
    asked = {"name": "edge", "certificate_request": make_request(make_key(), "edge")}
    answers = [
        guesser.post("/v1/nodes/join", json=asked | {"token": f"sj1.{number}"}).status_code
        for number in range(attempts.FREE_OF_ADDRESS + 1)
    ]
    assert answers == [403] * attempts.FREE_OF_ADDRESS + [429]
    guesser.environ_base["REMOTE_ADDR"] = "192.0.2.2"
    assert guesser.post("/v1/nodes/join", json=asked | {"token": "sj1.x"}).status_code == 403


def test_refused_certificates_and_renewals_are_written_down(
    world: World, joined: dict[str, Any]
) -> None:
    client, (serial,) = shows(world, joined["certificate"]), serials(world)
    assert world.as_("P-21").post(f"/v1/certificates/{serial}/revocation").status_code == 201
    for _ in range(3):  # a node goes on asking
        assert client.get(NODE + joined["reference"]).status_code == 401
    asked = {"certificate_request": make_request(make_key(), "edge")}
    client = world.app.test_client()
    told = asked | {"certificate": joined["certificate"]}
    assert client.post("/v1/certificates/renewals", json=told).status_code == 401
    assert client.post("/v1/certificates/renewals", json=asked).status_code == 401
    assert [(kind, reason) for kind, _, reason in refusals(world)] == [
        ("certificate", "certificate_revoked"),
        ("certificate", "certificate_revoked"),
        ("certificate", "renewal_refused"),
    ]
    assert refusals(world)[0][1] == joined["reference"]


def serials(world: World) -> list[str]:
    with world.session() as session:
        return list(session.scalars(select(IssuedCertificate.serial)))


def test_tokens_are_not_kept_in_clear(world: World) -> None:
    text = token(world)
    with world.session() as session:
        (row,) = session.scalars(select(JoinToken))
        assert text.split(".")[1] not in repr(vars(row))


@pytest.mark.parametrize(("caller", "status"), [("P-11", 403), ("P-22", 404), ("COMP-1", 404)])
def test_only_production_lets_machines_join(world: World, caller: str, status: int) -> None:
    asked = {"title": "edge", "project": "PROJ-1"}
    response = world.as_(caller).post("/v1/nodes/join-tokens", json=asked)
    assert response.status_code == status, response.text


def test_a_node_renews_its_certificate(world: World, joined: dict[str, Any]) -> None:
    client = shows(world, joined["certificate"])
    request = make_request(make_key(), "x")
    answer = client.post("/v1/certificates/renewals", json={"certificate_request": request})
    assert answer.status_code == 201, answer.text
    assert answer.get_json()["reference"] == joined["reference"]
    again = shows(world, answer.get_json()["certificate"])
    assert again.get(NODE + joined["reference"]).status_code == 200


def test_a_node_that_slept_comes_back_with_its_key(
    world: World, joined: dict[str, Any], clock: FakeClock
) -> None:
    clock.advance(timedelta(days=30).total_seconds())
    client = shows(world, joined["certificate"])
    response = client.get("/v1/nodes")
    assert error_of(response) == (401, "certificate_expired")
    asked = {"certificate": joined["certificate"]}
    mine = asked | {"certificate_request": make_request(joined["key"], "x")}
    answer = world.app.test_client().post("/v1/certificates/renewals", json=mine)
    assert answer.get_json()["reference"] == joined["reference"]
    foreign = asked | {"certificate_request": make_request(make_key(), "x")}
    refused = world.app.test_client().post("/v1/certificates/renewals", json=foreign)
    assert refused.status_code == 401
    clock.advance(timedelta(days=90).total_seconds())
    assert world.app.test_client().post("/v1/certificates/renewals", json=mine).status_code == 401


def test_a_revoked_certificate_counts_no_more_at_once(world: World, joined: dict[str, Any]) -> None:
    client = shows(world, joined["certificate"])
    assert client.get("/v1/nodes").status_code == 200
    found = x509.load_pem_x509_certificate(joined["certificate"].encode())
    path = f"/v1/certificates/{found.serial_number:x}/revocation"
    assert world.as_("P-22").post(path).status_code == 404
    assert world.as_("P-11").post(path).status_code == 404
    assert world.as_("P-21").post(path).status_code == 201
    assert error_of(client.get("/v1/nodes")) == (401, "certificate_revoked")
    # What is open to all stays open.
    assert client.get("/v1/authority").status_code == 200
    listed = client.get("/v1/authority/revocations")
    crl = x509.load_pem_x509_crl(listed.data)
    assert crl.get_revoked_certificate_by_serial_number(found.serial_number) is not None


def test_a_foreign_authority_shows_nobody(world: World, clock: FakeClock) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    forged = Authority.make(clock.now(), "SlapOS master 2026-03-01").issue(
        SubjectKind.NODE, "COMP-1", key.public_key(), clock.now(), timedelta(days=1)
    )
    text = forged.public_bytes(serialization.Encoding.PEM).decode()
    response = shows(world, text).get("/v1/nodes")
    assert error_of(response) == (401, "certificate_unknown")


def test_a_known_serial_number_does_not_make_a_forged_certificate_ours(
    world: World, joined: dict[str, Any], clock: FakeClock
) -> None:
    real = x509.load_pem_x509_certificate(joined["certificate"].encode())
    forger = ec.generate_private_key(ec.SECP256R1())
    forged = (
        x509.CertificateBuilder()
        .subject_name(real.subject)
        .issuer_name(real.issuer)
        .public_key(forger.public_key())
        .serial_number(real.serial_number)
        .not_valid_before(real.not_valid_before_utc)
        .not_valid_after(real.not_valid_after_utc)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(forger, hashes.SHA256())
    )
    text = forged.public_bytes(serialization.Encoding.PEM).decode()
    assert error_of(shows(world, text).get("/v1/nodes")) == (401, "certificate_unknown")


def test_a_servers_certificate_shows_nobody(world: World) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    with world.session() as session:
        issued = certificates.issue_server(session, issuing(world), ["x"], key.public_key())
    response = shows(world, issued.certificate).get("/v1/nodes")
    assert error_of(response) == (401, "certificate_wrong_purpose")


def _weak_request() -> str:
    key = rsa.generate_private_key(65537, 1024)
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
        .decode()
    )


@pytest.mark.parametrize("request_text", ["x", "-----BEGIN CERTIFICATE REQUEST-----\n!", "weak"])
def test_a_request_that_is_none_or_weak_uses_no_token_up(world: World, request_text: str) -> None:
    text = token(world)
    bad = _weak_request() if request_text == "weak" else request_text
    asked = {"token": text, "name": "edge", "certificate_request": bad}
    response = world.app.test_client().post("/v1/nodes/join", json=asked)
    assert error_of(response) == (400, "certificate_request_invalid")
    assert join(world, text, make_key()).status_code == 201


def test_only_the_node_that_holds_an_instance_certifies_it(world: World) -> None:
    world.as_("P-11")
    reference = _instance(world)
    path = "/v1/nodes/COMP-1/partitions/slappart0/certificates"
    asked = {"certificate_request": make_request(make_key(), "x")}
    assert world.as_("COMP-2").post(path, json=asked).status_code == 404
    assert world.as_("P-11").post(path, json=asked).status_code == 403
    answer = world.as_("COMP-1").post(path, json=asked).get_json()
    assert answer["reference"] == reference
    client = shows(world, answer["certificate"])
    assert client.get(f"{NODE}COMP-1").status_code == 200
    free = "/v1/nodes/COMP-1/partitions/slappart1/certificates"
    assert world.as_("COMP-1").post(free, json=asked).status_code == 404


def _instance(world: World) -> str:
    response = world.as_("P-11").post("/requestComputerPartition", data=request_form("web"))
    assert response.status_code in (200, 408)
    return world.place("web", "COMP-1", "slappart0")


def _certified(world: World, key: str) -> str:
    """Return the certificate of the instance in slappart0 of COMP-1, for a key."""
    path = "/v1/nodes/COMP-1/partitions/slappart0/certificates"
    asked = {"certificate_request": make_request(key, "x")}
    certificate: str = world.as_("COMP-1").post(path, json=asked).get_json()["certificate"]
    return certificate


def _renewal(world: World, certificate: str, key: str) -> TestResponse:
    asked = {"certificate": certificate, "certificate_request": make_request(key, "x")}
    return world.app.test_client().post("/v1/certificates/renewals", json=asked)


@pytest.mark.parametrize("days", [1, 20], ids=["before its end", "after its end"])
def test_what_moved_from_a_lost_node_has_no_certificate_there_any_more(
    world: World, clock: FakeClock, days: int
) -> None:
    filters = dumps({"reallocate": "true"})
    world.as_("P-11").post(
        "/requestComputerPartition", data=request_form("web", filter_xml=filters)
    )
    reference, key = world.place("web", "COMP-1", "slappart0"), make_key()
    left_behind = _certified(world, key)
    assert shows(world, left_behind).get(f"{NODE}COMP-1").status_code == 200
    clock.advance(timedelta(days=days).total_seconds())
    with world.session() as session:
        node = session.scalars(select(ComputeNode).where(ComputeNode.reference == "COMP-1")).one()
        now = clock.now()
        session.add(NodeLoss(node_id=node.id, heard_at=now, lost_at=now, released_at=now))
        session.flush()
        assert reallocation.empty(session, clock, world.parts.policy, "COMP-1") == (1, True)
        session.commit()
    old = shows(world, left_behind)
    for response in (
        old.get(f"{NODE}COMP-1"),
        old.post("/requestComputerPartition", data=request_form("child")),
        old.post("/v1/certificates/renewals", json={"certificate_request": make_request(key, "x")}),
    ):
        assert response.status_code == 401
    assert _renewal(world, left_behind, key).status_code == 401
    # Where it is now, it gets another one.
    world.place("web", "COMP-1", "slappart1")
    path = "/v1/nodes/COMP-1/partitions/slappart1/certificates"
    asked = {"certificate_request": make_request(make_key(), "x")}
    answer = world.as_("COMP-1").post(path, json=asked).get_json()
    assert answer["reference"] == reference
    assert shows(world, answer["certificate"]).get(f"{NODE}COMP-1").status_code == 200


@pytest.mark.parametrize("days", [1, 20], ids=["before its end", "after its end"])
def test_nothing_works_with_the_certificate_of_a_node_that_is_gone(
    world: World, joined: dict[str, Any], clock: FakeClock, days: int
) -> None:
    reference = joined["reference"]
    clock.advance(timedelta(days=days).total_seconds())
    asked = {"allocation_scope": "close/forever"}
    assert world.as_("P-21").patch(f"/v1/nodes/{reference}", json=asked).status_code < 300
    with world.session() as session:
        (task,) = (each for each in NODE_TASKS if each.name == INVALIDATE_CLOSED_NODES)
        parts = world.parts
        turn = Turn(
            session=session,
            clock=clock,
            identifiers=parts.identifiers,
            settings=parts.settings,
            policy=parts.policy,
        )
        assert task.run(turn).count == 1
        session.commit()
    client, key = shows(world, joined["certificate"]), joined["key"]
    report: dict[str, Any] = {"reports": []}
    for response in (
        client.get(NODE + reference),
        client.get(f"/v1/nodes/{reference}/changes"),
        client.post(f"/v1/nodes/{reference}/reports", json=report),
        client.post("/loadComputerConfigurationFromXML", data={"xml": dumps({})}),
        client.post(
            "/v1/certificates/renewals", json={"certificate_request": make_request(key, "x")}
        ),
    ):
        assert response.status_code == 401, response.text
    assert _renewal(world, joined["certificate"], key).status_code == 401


def test_an_authority_is_changed_with_overlap(
    world: World, joined: dict[str, Any], clock: FakeClock
) -> None:
    with world.session() as session:
        old = authorities.active_authority(session, clock).fingerprint
        authorities.rotate(session, issuing(world))
        session.commit()
    client = shows(world, joined["certificate"])
    asked = {"certificate_request": make_request(make_key(), "x")}
    before = client.post("/v1/certificates/renewals", json=asked).get_json()
    assert before["authority"].count("BEGIN CERTIFICATE") == 2
    assert _signers(world) == {old}
    clock.advance(authorities.KNOWN_AFTER.total_seconds() + 1)
    after = client.post("/v1/certificates/renewals", json=asked).get_json()
    assert len(_signers(world)) == 2
    for certificate in (joined["certificate"], before["certificate"], after["certificate"]):
        assert shows(world, certificate).get("/v1/nodes").status_code == 200
    with world.session() as session:
        authorities.retire(session, clock, old)
        session.commit()
    assert shows(world, after["certificate"]).get("/v1/nodes").status_code == 200
    refused = shows(world, joined["certificate"]).get("/v1/nodes")
    assert error_of(refused) == (401, "certificate_revoked")


def _signers(world: World) -> set[str]:
    with world.session() as session:
        rows = session.scalars(select(IssuedCertificate)).all()
        return {row.authority.fingerprint for row in rows}
