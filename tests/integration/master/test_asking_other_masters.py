"""Speaking with the master behind a remote node: to where it is allowed, and as whom."""

import json
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
import trustme
from flask import Flask
from sqlalchemy import select

from slapos.master.app import create_app
from slapos.master.nodes.model import RemoteNode
from slapos.master.remote.asking import (
    Credentials,
    Peer,
    Reach,
    Told,
    Wanted,
    ask,
    renewed,
    speaking_with,
)
from slapos.master.remote.tasks import ask_other_masters
from slapos.master.settings import Profile, Settings
from slapos.master.tasks.task import Turn
from slapos.protocol.errors import MasterUnreachable
from slapos.protocol.marshal import Marshalled, dumps, loads
from slapos.protocol.states import InstanceState
from tests.fakes import FakeClock, FakeIdentifiers
from tests.integration.master.catalogue import add_product, add_supply
from tests.integration.master.factories import URL
from tests.integration.master.full import World, by_header
from tests.integration.master.web_server import served
from tests.tls_server import TlsServer

NAME = "master.example.com"
HERE = (ip_network("127.0.0.0/8"),)
WANTED = Wanted(
    title="_remote_PROJ-1_SOFTINST-2",
    software_url="https://example.org/software.cfg",
    software_type="default",
    shared=False,
    state=InstanceState.STARTED,
)
REQUESTED = {
    "_connection_dict": {"url": "http://far/"},
    "_instance_guid": "SOFTINST-9",
    "_parameter_dict": {},
    "_requested_state": "started",
    "slap_computer_id": "COMP-1",
    "slap_computer_partition_id": "slappart0",
    "timestamp": "1764000000.5",
}
CONFIGURATION = {
    "reference": "computer",
    "address": "127.0.0.1",
    "netmask": "255.0.0.0",
    "partition_list": [{"reference": "slappart0", "address_list": [], "tap": {"name": ""}}],
}
YOUNG, OLD = "Mon, 24 Nov 2025 16:00:00 GMT", "Mon, 24 Nov 2025 15:59:59 GMT"


@dataclass
class Far:
    """A server that answers as it is told: a path's status, and what it says."""

    answers: dict[str, tuple[int, Any]] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str], dict[str, Any], str]] = field(default_factory=list)
    port: int = 0
    authority: trustme.CA = field(default_factory=trustme.CA)
    clients: trustme.CA = field(default_factory=trustme.CA)

    @property
    def url(self) -> str:
        return f"https://{NAME}:{self.port}/"

    def peer(self, **fields: Any) -> Peer:
        shown = self.clients.issue_cert("person@example.com")
        defaults: dict[str, Any] = {
            "url": self.url,
            "authority": self.authority.cert_pem.bytes().decode(),
            "credentials": Credentials(
                certificate=shown.cert_chain_pems[0].bytes().decode(),
                key=shown.private_key_pem.bytes().decode(),
            ),
        }
        return Peer(**(defaults | fields))


@pytest.fixture
def far() -> Iterator[Far]:
    found = Far()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            form = parse_qs(self.rfile.read(length).decode())
            path = self.path.partition("?")[0].strip("/")
            certificate: Any = self.connection.getpeercert()
            names = [name for _, name in (certificate or {}).get("subjectAltName", ())]
            fields = {name: values[0] for name, values in form.items()}
            found.asked.append((path, dict(self.headers), fields, ",".join(names)))
            status, told = found.answers.get(path, (404, "there is no such page"))
            content = told.encode() if isinstance(told, str) else dumps(told)
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            if status == 302:
                self.send_header("Location", told)
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def log_message(self, *_arguments: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    found.authority.issue_cert(NAME).configure_cert(context)
    context.verify_mode = ssl.CERT_OPTIONAL
    found.clients.configure_trust(context)
    server = TlsServer(("127.0.0.1", 0), Handler)
    server.context = context
    found.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


def reach(*addresses: str, networks: Any = HERE) -> Reach:
    def resolve(_host: str) -> Sequence[str]:
        return addresses or ("127.0.0.1",)

    return Reach(networks, resolve)


@contextmanager
def given(far: Far, status: dict[str, Any] | None = None, **state: Any) -> Iterator[None]:
    """Have the server answer an order, and with the status of its instance."""
    told = Marshalled("SoftwareInstance", (), REQUESTED | state)
    far.answers = {"requestComputerPartition": (200, told)}
    if status is not None:
        far.answers["getComputerPartitionStatus"] = (200, status)
    yield


def asked(far: Far, peer: Peer | None = None, wanted: Wanted = WANTED) -> Told:
    peer = peer or far.peer()
    with speaking_with(peer, reach()) as client:
        return ask(client, peer, wanted)


def test_a_certificate_is_shown_and_the_name_is_what_counts(far: Far) -> None:
    with given(far):
        told = asked(far, far.peer(project="PROJ-7", filters={"region": "eu"}))
    assert told.connection == {"url": "http://far/"}
    path, headers, form, who = far.asked[0]
    assert (path, headers["Host"]) == ("requestComputerPartition", f"{NAME}:{far.port}")
    assert who == "person@example.com"
    assert loads(form["filter_xml"].encode()) == {"region": "eu", "project_guid": "PROJ-7"}


def test_a_token_is_shown_instead(far: Far) -> None:
    with given(far):
        asked(far, far.peer(credentials=Credentials(token="slapos_x")))
    assert far.asked[0][1]["Authorization"] == "Bearer slapos_x"
    assert far.asked[0][3] == ""


def test_who_cannot_prove_to_be_that_master_is_told_nothing(far: Far) -> None:
    other = trustme.CA().cert_pem.bytes().decode()
    with pytest.raises(MasterUnreachable, match="could not prove who it is"):
        asked(far, far.peer(authority=other))
    with pytest.raises(MasterUnreachable, match="could not prove who it is"):
        asked(far, far.peer(url=far.url.replace(NAME, "another.example.com")))
    assert far.asked == []


@pytest.mark.parametrize(
    ("addresses", "networks"),
    [
        (["127.0.0.1"], ()),
        (["10.1.2.3"], ()),
        (["::1"], ()),
        (["::ffff:127.0.0.1"], ()),
        (["169.254.169.254"], ()),
        (["127.0.0.1"], (ip_network("10.0.0.0/8"),)),
        (["127.0.0.1", "192.0.2.7"], HERE),
    ],
)
def test_only_allowed_addresses_are_spoken_to(
    far: Far, addresses: list[str], networks: tuple[Any, ...]
) -> None:
    with (
        speaking_with(far.peer(), reach(*addresses, networks=networks)) as client,
        pytest.raises(MasterUnreachable, match="remote_networks"),
    ):
        ask(client, far.peer(), WANTED)
    assert far.asked == []


def test_a_redirection_leads_to_allowed_addresses_only(far: Far) -> None:
    def resolve(host: str) -> Sequence[str]:
        return ["127.0.0.1"] if host == NAME else ["10.0.0.1"]

    far.answers = {"requestComputerPartition": (302, "https://inner.example.com/")}
    with (
        speaking_with(far.peer(), Reach(HERE, resolve)) as client,
        pytest.raises(MasterUnreachable, match="remote_networks"),
    ):
        ask(client, far.peer(), WANTED)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"text": "#access Instance correctly started", "state": "started"}, (True, "")),
        ({"text": "#access Instance correctly stopped", "state": "stopped"}, (False, "")),
        ({"text": "#error no data found for SOFTINST-9", "no_data": 1}, (False, "")),
        ({"text": "#error Promise 'x' failed: no"}, (False, "Promise 'x' failed: no")),
        ({"text": "#access fine", "state": "started", "created_at": YOUNG}, (True, "")),
        ({"text": "#access fine", "state": "started", "created_at": OLD}, (False, "")),
        ({"text": "#error of before", "created_at": OLD}, (False, "")),
    ],
)
def test_what_is_said_of_an_instance_is_understood(
    far: Far, status: dict[str, Any], expected: tuple[bool, str]
) -> None:
    with given(far, status):
        told = asked(far)
    assert (told.is_done, told.error) == expected


def test_a_master_that_tells_no_status_is_believed_that_it_does_as_asked(far: Far) -> None:
    with given(far):
        assert asked(far).is_done


@pytest.mark.parametrize(
    ("status", "words", "is_refused"),
    [
        (408, "not ready yet: it waits", False),
        (409, "refuses it: it waits", True),
        (403, "refuses it: it waits", True),
        (404, "refuses it: it waits", True),
        (507, "refuses it: it waits", True),
        (500, "fails: it waits", False),
        (429, "fails: it waits", False),
    ],
)
def test_other_answers_are_errors_with_their_words(
    far: Far, status: int, words: str, is_refused: bool
) -> None:
    far.answers = {"requestComputerPartition": (status, "it waits")}
    told = asked(far)
    assert words in told.error
    assert (told.is_refused, told.connection) == (is_refused, None)


def test_nonsense_is_a_failure_of_that_master(far: Far) -> None:
    with given(far, _connection_dict={5: "a number as a name", "a": "a text"}):
        assert "makes no sense" in asked(far).error
    with given(far, slap_computer_id=["no", "text"]):
        assert not asked(far).is_done
    far.answers = {"requestComputerPartition": (200, "<html>portal</html>")}
    assert "makes no sense" in asked(far).error
    far.answers = {"requestComputerPartition": (200, "x" * (5 << 20))}
    assert "more than 4 MiB" in asked(far).error


def old_certificate(far: Far) -> Credentials:
    now = datetime.now(UTC)
    began, ends = now - timedelta(days=80), now + timedelta(days=10)
    shown = far.clients.issue_cert("person@example.com", not_before=began, not_after=ends)
    return Credentials(
        certificate=shown.cert_chain_pems[0].bytes().decode(),
        key=shown.private_key_pem.bytes().decode(),
    )


def test_a_certificate_is_renewed_in_time(far: Far) -> None:
    peer = far.peer(credentials=old_certificate(far))
    now = datetime.now(UTC)
    with speaking_with(peer, reach()) as client:
        assert renewed(client, peer, now) is None, "that master has no such call"
        told = {"certificate": "new", "authority": "all"}
        far.answers = {"v1/certificates/renewals": (200, json.dumps(told))}
        found = renewed(client, peer, now)
        assert found is not None
        assert (found.credentials.certificate, found.authority) == ("new", "all")
        assert found.credentials.key == peer.credentials.key
        assert renewed(client, far.peer(), now - timedelta(days=3650)) is None, "it is young"
        token = far.peer(credentials=Credentials(token="slapos_x"))
        assert renewed(client, token, now) is None


def test_a_renewed_certificate_is_kept(
    far: Far, settings: Settings, clock: FakeClock, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("x" * 64)
    (tmp_path / "secret").chmod(0o600)
    settings = Settings(
        database_url=settings.database_url,
        profile=Profile.FULL,
        secret_file=tmp_path / "secret",
        remote_networks=HERE,
    )
    app = create_app(settings, clock, FakeIdentifiers(), by_header)
    world, shown = World(app), old_certificate(far)
    new = far.peer().credentials.certificate
    far.answers = {
        "v1/certificates/renewals": (200, json.dumps({"certificate": new, "authority": "all"}))
    }
    clock.advance((datetime.now(UTC) - clock.now()).total_seconds())
    body = {
        "project": "PROJ-1",
        "title": "far",
        "url": far.url,
        "authority": far.peer().authority,
        "certificate": shown.certificate,
        "key": shown.key,
    }
    reference = world.as_("P-21").post("/v1/remote-nodes", json=body).get_json()["reference"]
    with world.session() as session:
        add_supply(session, add_product(session, project_id=1), [reference])
        session.commit()
    asks = {"project": "PROJ-1", "title": "web", "software_url": URL}
    assert world.as_("P-11").post("/v1/instance-trees", json=asks).status_code == 201
    path = f"/v1/remote-nodes/{reference}"
    before = world.as_("P-21").get(path).get_json()
    have_asked(world, reach())
    after = world.as_("P-21").get(path).get_json()
    assert before["credentials_until"] != after["credentials_until"]
    assert after["authority"] == "all"
    app.extensions["slapos"].database.close()


def have_asked(world: World, to: Reach) -> None:
    """Have the task done for the only remote node."""
    parts = world.parts
    with world.session() as session:
        turn = Turn(
            session=session,
            clock=parts.clock,
            identifiers=parts.identifiers,
            settings=parts.settings,
            policy=parts.policy,
            keys=[str(session.scalars(select(RemoteNode)).one().node_id)],
        )
        done = ask_other_masters(turn, to)
        session.commit()
    assert done.elsewhere is not None
    apply = done.elsewhere()
    with world.session() as session:
        apply(session)
        session.commit()


def test_a_local_master_is_asked_in_the_same_way(app: Flask) -> None:
    with served(app) as port:
        peer = Peer(f"http://127.0.0.1:{port}/", "", Credentials(token="of nobody"))
        with speaking_with(peer, reach()) as client:
            assert "refuses it" in ask(client, peer, WANTED).error, "it has no node yet"
            client.post_node_configuration(CONFIGURATION)
            assert ask(client, peer, WANTED) == Told({})
            client.publish("computer", "slappart0", {"url": "http://far/"})
            client.report_state("computer", "slappart0", InstanceState.STARTED)
            assert ask(client, peer, WANTED) == Told({"url": "http://far/"}, is_done=True)
            gone = Wanted(**{**vars(WANTED), "state": InstanceState.DESTROYED})
            assert ask(client, peer, gone).is_done
            client.report_state("computer", "slappart0", InstanceState.DESTROYED)
            assert ask(client, peer, gone).is_done


def test_what_is_not_there_is_destroyed(far: Far) -> None:
    far.answers = {"requestComputerPartition": (408, "there is none to destroy")}
    gone = Wanted(**{**vars(WANTED), "state": InstanceState.DESTROYED})
    assert asked(far, wanted=gone).is_done
