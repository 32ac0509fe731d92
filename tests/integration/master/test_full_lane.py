"""With a certificate, what is asked over and over is answered as the long way would.

Each case is asked of a master that has everything kept, and of one that has just begun and knows
nothing: both have to say the same.
"""

import json
import logging
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from flask import Flask
from prometheus_client import CollectorRegistry
from sqlalchemy import event, update
from werkzeug.test import TestResponse

from slapos.master.app import create_app
from slapos.master.certificates import authorities
from slapos.master.certificates import service as certificates
from slapos.master.certificates.authorities import Issuing
from slapos.master.certificates.authority import Authority, SubjectKind
from slapos.master.certificates.showing import CERTIFICATE, read_shown
from slapos.master.certificates.views import BOX
from slapos.master.nodes.model import ComputeNode
from slapos.master.provisioning.model import SoftwareInstance
from slapos.master.secret_file import make_secret_file
from slapos.master.settings import Profile, Rate, Settings
from slapos.master.traffic.metrics import METRICS
from slapos.protocol.certificate_request import make_key, make_request
from slapos.protocol.marshal import dumps
from slapos.system.identifier import SystemIdentifiers
from tests.fakes import FakeClock
from tests.integration.master.factories import request_form
from tests.integration.master.full import World
from tests.integration.master.test_certificates import by_either

NODE = "/getFullComputerInformation?computer_id="
PROXY = "192.0.2.7"


def der(text: str) -> bytes:
    return x509.load_pem_x509_certificate(text.encode()).public_bytes(Encoding.DER)


@dataclass
class Fleet:
    """A full master with two nodes and a tree on COMP-1: `web`, which asks for `database`."""

    settings: Settings
    clock: FakeClock
    world: World = field(init=False)
    node: bytes = field(init=False)
    root: bytes = field(init=False)
    child: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.world = World(create_app(self.settings, self.clock, SystemIdentifiers(), by_either))
        with self.world.session() as session:
            authorities.ensure_authority(session, self.issuing)
            session.commit()
        self.world.as_("P-11").post("/requestComputerPartition", data=request_form("web"))
        web = self.world.place("web", "COMP-1", "slappart0")
        self.world.as_(web).post("/requestComputerPartition", data=request_form("database"))
        self.world.place("database", "COMP-1", "slappart1")
        self.node = self.certify("COMP-1")
        self.root = self.certify("COMP-1", "slappart0")
        self.child = self.certify("COMP-1", "slappart1")

    @property
    def issuing(self) -> Issuing:
        return Issuing(self.clock, self.world.app.extensions[BOX])

    def certify(self, node: str, partition: str | None = None) -> bytes:
        """Return a certificate (DER) of a node, or of the instance in a partition."""
        request = make_request(make_key(), "x")
        with self.world.session() as session:
            found = session.query(ComputeNode).filter_by(reference=node).one()
            if partition is None:
                issued = certificates.certify_node(session, self.issuing, found, request)
            else:
                _, issued = certificates.certify_partition(
                    session, self.issuing, node, partition, request
                )
            session.commit()
            return der(issued.certificate)

    def tell(self, app: Flask, shown: bytes | None, **more: Any) -> TestResponse:
        """Ask what COMP-1 is told, showing a certificate."""
        environ: dict[str, Any] = {} if shown is None else {CERTIFICATE: shown}
        more.setdefault("environ_overrides", environ)
        return app.test_client().get(more.pop("path", NODE + "COMP-1"), **more)

    def request(
        self, app: Flask, shown: bytes | None, title: str = "database", **more: str
    ) -> TestResponse:
        """Ask for an instance, showing a certificate."""
        environ: dict[str, Any] = {} if shown is None else {CERTIFICATE: shown}
        return app.test_client().post(
            "/requestComputerPartition",
            data=request_form(title) | more,
            environ_overrides=environ,
        )

    def warm(self) -> None:
        """Have everything kept that may be."""
        for _ in range(2):
            for ask in self.questions(self.node, self.root):
                assert ask(self.world.app).status_code == 200

    def questions(self, node: bytes, root: bytes) -> list[Callable[[Flask], TestResponse]]:
        """Return what the lane answers, asked with these certificates."""
        place = {"computer_id": "COMP-1", "computer_partition_id": "slappart0"}
        return [
            lambda app: self.tell(app, node),
            lambda app: self.tell(app, node, headers={"Accept-Encoding": "gzip"}),
            lambda app: self.request(app, root),
            lambda app: self.request(app, root, **place),
            lambda app: self.request(app, node, **place),
        ]

    def cold(self) -> Flask:
        """Return a master on the same database that has kept nothing."""
        return create_app(self.settings, self.clock, SystemIdentifiers(), by_either)

    def change(self, work: Callable[[Any], object]) -> None:
        with self.world.session() as session:
            work(session)
            session.commit()


@pytest.fixture
def settings_of_fleet(settings: Settings, tmp_path: Path) -> Settings:
    secret = tmp_path / "secret"
    make_secret_file(secret, SystemIdentifiers())
    return Settings(
        database_url=settings.database_url,
        profile=Profile.FULL,
        secret_file=secret,
        trusted_proxies=(ip_network(PROXY),),
        rate_limit=Rate(1000, 1000),
    )


@pytest.fixture
def fleet(settings_of_fleet: Settings, clock: FakeClock) -> Iterator[Fleet]:
    fleet = Fleet(settings_of_fleet, clock)
    fleet.warm()
    yield fleet
    fleet.world.app.extensions["slapos"].database.close()


@pytest.fixture
def statements(fleet: Fleet) -> list[str]:
    """What the warm master has asked the database the long way: none of the lane's looks."""
    found: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if "pg_notify" not in statement:  # a thread of its own tells others
            found.append(statement)

    engine = fleet.world.app.extensions["slapos"].database.engine
    event.listen(engine, "before_cursor_execute", note)
    return found


def said(answer: TestResponse) -> tuple[int, bytes, dict[str, str]]:
    headers = {name: value for name, value in answer.headers.items() if name != "X-Request-Id"}
    return answer.status_code, answer.data, headers


def same(fleet: Fleet, ask: Callable[[Flask], TestResponse]) -> TestResponse:
    """Return what the warm master says; the one that has just begun says the same."""
    warm, cold = ask(fleet.world.app), fleet.cold()
    assert said(warm) == said(ask(cold))
    cold.extensions["slapos"].database.close()
    return warm


def test_each_answer_is_that_of_the_long_way_and_does_not_take_it(
    fleet: Fleet, statements: list[str]
) -> None:
    for ask in fleet.questions(fleet.node, fleet.root):
        statements.clear()
        warm = ask(fleet.world.app)
        assert statements == []
        assert warm.status_code == 200
        assert warm.headers["X-Request-Id"]
        assert said(same(fleet, ask)) == said(warm)


def test_a_node_that_has_it_all_is_told_so_past_the_application(
    fleet: Fleet, statements: list[str]
) -> None:
    known = {"If-None-Match": fleet.tell(fleet.world.app, fleet.node).headers["ETag"]}
    statements.clear()
    answer = fleet.tell(fleet.world.app, fleet.node, headers=known)
    assert (answer.status_code, answer.data, statements) == (304, b"", [])
    same(fleet, lambda app: fleet.tell(app, fleet.node, headers=known))


Case = Callable[[Fleet], tuple[bytes | None, bytes | None]]


def _foreign(fleet: Fleet) -> tuple[bytes, bytes]:
    return fleet.certify("COMP-2"), fleet.child


def _revoked(fleet: Fleet) -> tuple[bytes, bytes]:
    def revoke(session: Any) -> None:
        for shown in (fleet.node, fleet.root):
            certificates.revoke(session, fleet.clock, read_shown(shown).serial)

    fleet.change(revoke)
    return fleet.node, fleet.root


def _expired(fleet: Fleet) -> tuple[bytes, bytes]:
    fleet.clock.advance(timedelta(days=15).total_seconds())
    return fleet.node, fleet.root


def _rotated(fleet: Fleet) -> tuple[bytes, bytes]:
    def rotate(session: Any) -> None:
        old = authorities.active_authority(session, fleet.clock).fingerprint
        authorities.rotate(session, fleet.issuing)
        fleet.clock.advance(authorities.KNOWN_AFTER.total_seconds() + 1)
        authorities.retire(session, fleet.clock, old, anyway=True)

    fleet.change(rotate)
    return fleet.node, fleet.root


def _for_servers(fleet: Fleet) -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    issued: list[str] = []
    fleet.change(
        lambda s: issued.append(
            certificates.issue_server(s, fleet.issuing, ["x"], key.public_key()).certificate
        )
    )
    return der(issued[0]), der(issued[0])


def _of_another_authority(fleet: Fleet) -> tuple[bytes, bytes]:
    """One that says that it is the same, with the same serial number."""
    found = []
    for shown, kind in ((fleet.node, SubjectKind.NODE), (fleet.root, SubjectKind.INSTANCE)):
        real = x509.load_der_x509_certificate(shown)
        key = ec.generate_private_key(ec.SECP256R1())
        other = Authority.make(fleet.clock.now(), "SlapOS master")
        forged = other.issue(kind, "x", key.public_key(), fleet.clock.now(), timedelta(days=1))
        builder = x509.CertificateBuilder(
            subject_name=real.subject,
            issuer_name=real.issuer,
            public_key=key.public_key(),
            serial_number=real.serial_number,
            not_valid_before=real.not_valid_before_utc,
            not_valid_after=real.not_valid_after_utc,
            extensions=list(forged.extensions),
        )
        found.append(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER))
    return found[0], found[1]


def _invalidated(fleet: Fleet) -> tuple[bytes, bytes]:
    """As an operator does it; and the bare row, whatever else goes with it."""
    path = "/v1/nodes/COMP-1"
    client = fleet.world.as_("P-21")
    client.patch(path, json={"allocation_scope": "close/forever"})
    fleet.change(lambda s: s.execute(update(ComputeNode).values(invalidated_at=fleet.clock.now())))
    return fleet.node, fleet.root


def _unreadable(fleet: Fleet) -> tuple[bytes, bytes]:
    return b"unreadable", fleet.root[:-1]


def _none(fleet: Fleet) -> tuple[None, None]:
    return None, None


def _own(fleet: Fleet) -> tuple[bytes, bytes]:
    return fleet.node, fleet.root


def _renewed(fleet: Fleet) -> tuple[bytes, bytes]:
    return fleet.certify("COMP-1"), fleet.certify("COMP-1", "slappart0")


#: What is shown, and what is answered to the node and to the instance.
CASES: dict[str, tuple[Case, int, int]] = {
    "own": (_own, 200, 200),
    "renewed": (_renewed, 200, 200),
    "foreign": (_foreign, 404, 408),
    "revoked": (_revoked, 401, 401),
    "expired": (_expired, 401, 401),
    "authority retired": (_rotated, 401, 401),
    "of another authority": (_of_another_authority, 401, 401),
    "for servers": (_for_servers, 401, 401),
    "unreadable": (_unreadable, 401, 401),
    "none": (_none, 401, 401),
}


@pytest.mark.parametrize("case", CASES)
def test_a_certificate_gets_what_it_would_get_the_long_way(fleet: Fleet, case: str) -> None:
    make, node_status, root_status = CASES[case]
    node, root = make(fleet)
    told = same(fleet, lambda app: fleet.tell(app, node))
    given = same(fleet, lambda app: fleet.request(app, root))
    if case == "foreign":
        assert b"database" not in given.data or given.status_code != 200
    else:
        assert given.status_code == root_status
    assert told.status_code == node_status
    for ask in fleet.questions(node, root) if node and root else ():
        same(fleet, ask)


def test_a_node_that_is_gone_has_no_lane(fleet: Fleet, statements: list[str]) -> None:
    _invalidated(fleet)
    statements.clear()
    fleet.tell(fleet.world.app, fleet.node)
    assert len(statements) > 1


def test_what_a_header_says_counts_from_a_trusted_web_server_alone(
    fleet: Fleet, statements: list[str]
) -> None:
    def ask(app: Flask, address: str) -> TestResponse:
        shown = {"X-SSL-Client-Cert": b64encode(fleet.node).decode()}
        environ = {"REMOTE_ADDR": address}
        return fleet.tell(app, None, headers=shown, environ_overrides=environ)

    statements.clear()
    assert ask(fleet.world.app, PROXY).status_code == 200
    assert statements == []
    same(fleet, lambda app: ask(app, PROXY))
    assert same(fleet, lambda app: ask(app, "192.0.2.8")).status_code == 401


def test_a_web_servers_own_certificate_is_nobodys(fleet: Fleet) -> None:
    environ = {"REMOTE_ADDR": PROXY, CERTIFICATE: fleet.node}
    ask = same(fleet, lambda app: fleet.tell(app, None, environ_overrides=environ))
    assert ask.status_code == 401


def call(who: str, path: str, **form: str) -> Callable[[Fleet], object]:
    return lambda fleet: fleet.world.as_(who).post(path, data=form)


CHILD = {"computer_id": "COMP-1", "computer_partition_id": "slappart1"}
ROOT = {"computer_id": "COMP-1", "computer_partition_id": "slappart0"}


def _elsewhere(fleet: Fleet) -> None:
    """Have the root moved to another partition."""

    def move(session: Any) -> None:
        root = session.query(SoftwareInstance).filter_by(title="web").one()
        left = root.partition
        root.leave()
        session.flush()
        left.release()
        session.flush()

    fleet.change(move)
    fleet.world.place("web", "COMP-1", "slappart2")


CHANGES: dict[str, Callable[[Fleet], object]] = {
    "published": call(
        "COMP-1",
        "/setComputerPartitionConnectionXml",
        connection_xml=dumps({"url": "x"}).decode(),
        **CHILD,
    ),
    "root stopped": call(
        "P-11", "/requestComputerPartition", **request_form("web", state="stopped")
    ),
    "root renamed": call("P-11", "/softwareInstanceRename", new_name="new", **ROOT),
    "root moved": _elsewhere,
    "child gone": call("COMP-1", "/destroyedComputerPartition", **CHILD),
    "error": call("COMP-1", "/softwareInstanceError", error_log="broken", **CHILD),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_is_answered(fleet: Fleet, what: str) -> None:
    CHANGES[what](fleet)
    for ask in fleet.questions(fleet.node, fleet.root):
        warm = ask(fleet.world.app)  # first, as a request may change what is there
        cold = fleet.cold()
        assert said(warm) == said(ask(cold))
        cold.extensions["slapos"].database.close()


def test_another_query_or_host_is_another_request(fleet: Fleet) -> None:
    other = "/requestComputerPartition?computer_id=COMP-1&computer_partition_id=slappart1"
    for path, host in ((other, "localhost"), ("/requestComputerPartition", "other")):
        ask = partial(_post, shown=fleet.root, path=path, host=host)
        same(fleet, ask)


def _post(app: Flask, shown: bytes, path: str, host: str) -> TestResponse:
    environ: Any = {CERTIFICATE: shown}
    return app.test_client().post(
        path, data=request_form("database"), headers={"Host": host}, environ_overrides=environ
    )


def test_what_a_person_may_is_asked_each_time(fleet: Fleet, statements: list[str]) -> None:
    for _ in range(2):
        statements.clear()
        answer = fleet.world.as_("P-11").post("/requestComputerPartition", data=request_form("web"))
        assert answer.status_code == 200
    assert len(statements) > 1


def test_the_lane_counts_logs_and_limits_as_the_long_way(
    settings_of_fleet: Settings, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    fleet = Fleet(replace(settings_of_fleet, rate_limit=Rate(1, 5)), clock)
    app = fleet.world.app
    caplog.set_level(logging.INFO, "slapos.master.access")
    answers = [
        fleet.tell(app, fleet.node, headers={"X-Request-Id": f"request-{n}"}) for n in range(6)
    ]
    assert [each.status_code for each in answers] == [200] * 5 + [429]
    assert [each.headers["X-Request-Id"] for each in answers] == [f"request-{n}" for n in range(6)]
    assert answers[5].headers["Retry-After"] == "2"
    found = [record.__dict__["slapos_fields"] for record in caplog.records[-6:]]
    assert [each["request_id"] for each in found] == [f"request-{n}" for n in range(6)]
    first, second = (
        {name: value for name, value in each.items() if name not in ("request_id", "milliseconds")}
        for each in found[:2]
    )
    assert first == second
    assert json.loads(json.dumps(second))["caller"] == "COMP-1"
    counted = app.extensions[METRICS].text(CollectorRegistry())
    labels = 'method="GET",operation="slap_tool.get_full_computer_information",status="200"'
    assert f"slapos_master_requests_total{{{labels}}} 5.0".encode() in counted
    app.extensions["slapos"].database.close()


def test_what_a_node_says_of_its_own_takes_few_statements(
    fleet: Fleet, statements: list[str]
) -> None:
    """As slapos.core's node does it; what it says of another's, or of none, is refused as ever."""

    def say(call: str, node: str = "COMP-1", partition: str = "slappart0", **more: str) -> int:
        place = {"computer_id": node, "computer_partition_id": partition}
        environ: Any = {CERTIFICATE: fleet.node}
        answer = fleet.world.app.test_client().post(
            f"/{call}", data=place | more, environ_overrides=environ
        )
        return answer.status_code

    def known() -> Any:
        with fleet.world.session() as session:
            return session.query(SoftwareInstance).filter_by(title="web").one().reported

    assert say("startedComputerPartition") == 200
    assert (known().state, known().at) == ("started", fleet.clock.now())
    statements.clear()
    assert say("startedComputerPartition") == 200
    assert len(statements) <= 5
    assert not any(each.startswith("UPDATE software_instances") for each in statements)
    fleet.clock.advance(1)
    assert say("softwareInstanceError", error_log="broken") == 200
    assert (known().error, known().since) == ("broken", fleet.clock.now())
    assert b"#error broken" in fleet.tell(fleet.world.app, fleet.node).data
    assert say("softwareInstanceError") == 200
    assert known().error == "no reason was given"
    assert say("startedComputerPartition", timestamp="12.5") == 200
    assert known().about == datetime.fromtimestamp(12.5, UTC)
    refused = [
        say("startedComputerPartition", node="COMP-2"),
        say("startedComputerPartition", partition="slappart2"),
        say("startedComputerPartition", partition="nowhere"),
        say("softwareInstanceError", node="COMP-2", error_log="broken"),
    ]
    assert refused == [404] * 4
    with fleet.world.session() as session:
        (exchange,) = session.query(ComputeNode).filter_by(reference="COMP-1").all()
        assert exchange.contacted_at == fleet.clock.now()
