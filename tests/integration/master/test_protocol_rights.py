"""Every call of SLAP, JSON-RPC and hateoas, asked by strangers: told nothing, changing nothing."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select
from werkzeug.test import TestResponse

from slapos.master.app import create_app
from slapos.master.database import Base
from slapos.master.identity.caller import Role
from slapos.master.provisioning.model import SoftwareInstance
from slapos.master.settings import Profile, Settings
from slapos.protocol.marshal import dumps
from tests.fakes import FakeClock, FakeIdentifiers
from tests.integration.master.every_table import rows_of
from tests.integration.master.factories import URL, request_form
from tests.integration.master.full import World, by_header

#: In titles, parameters and what is published in PROJ-1, and nowhere else.
SECRET = "of-project-one"
RELEASE = f"https://example.org/{SECRET}.cfg"
ADDRESS = "http://10.1.0.0:1"
PUBLISHED = {"url": ADDRESS, "secret": SECRET}

NODE = {"computer_guid": "COMP-1"}
INSTANCE = {"instance_guid": "{web}"}
ON_NODE = {"software_release_uri": RELEASE, **NODE}
#: JSON-RPC call → what it is asked.
CALLS: dict[str, dict[str, Any]] = {
    "post.v0.software_instance": {
        "title": f"web {SECRET}",
        "software_release_uri": URL,
        "software_type": "default",
        "sla_parameters": {"project_guid": "PROJ-1"},
    },
    "get.v0.instance_tree": {"title": f"web {SECRET}"},
    "get.v0.software_instance": INSTANCE,
    "get.v0.compute_partition": {**NODE, "compute_partition_id": "slappart0"},
    "get.v0.software_instance_certificate": INSTANCE,
    "get.v0.compute_node_status": NODE,
    "get.v0.hateoas_url": {},
    "allDocs.v0.instance_tree_list": {},
    "allDocs.v0.compute_node_instance_list": NODE,
    "allDocs.v0.instance_node_instance_list": INSTANCE,
    "allDocs.v0.compute_node_software_installation_list": NODE,
    "allDocs.WIP.compute_node_list": {},
    "post.v0.software_installation": ON_NODE,
    "post.v0.compute_node_certificate": NODE,
    "remove.v0.compute_node_certificate": NODE,
    "post.v0.compute_node_usage": {**NODE, "tioxml": "<x/>"},
    "put.v0.compute_node_format": {**NODE, "compute_partition_list": []},
    "put.v0.compute_node_bang": {**NODE, "message": "x"},
    "put.v0.software_instance_bang": {**INSTANCE, "message": "x"},
    "put.v0.software_instance_title": {**INSTANCE, "title": "x"},
    "put.v0.software_instance_connection_parameter": {
        **INSTANCE,
        "connection_parameter_dict": {"x": "y"},
    },
    "put.v0.software_instance_error": {**INSTANCE, "message": "x"},
    "put.v0.software_instance_reported_state": {**INSTANCE, "reported_state": "destroyed"},
    "put.v0.software_installation_reported_state": {**ON_NODE, "reported_state": "destroyed"},
    "put.v0.software_installation_error": {**ON_NODE, "message": "x"},
}

COMPUTER = {"computer_id": "COMP-1"}
PLACE = {**COMPUTER, "computer_partition_id": "slappart0"}
BUILD = {**COMPUTER, "url": RELEASE}
FORMAT = {"reference": "COMP-1", "address": "10.1.0.1", "netmask": "", "partition_list": []}
#: SLAP call → its fields.
FORMS: dict[str, dict[str, str]] = {
    "getFullComputerInformation": COMPUTER,
    "getComputerInformation": COMPUTER,
    "registerComputerPartition": {
        "computer_reference": "COMP-1",
        "computer_partition_reference": "slappart0",
    },
    "getComputerPartitionCertificate": PLACE,
    "loadComputerConfigurationFromXML": {"xml": dumps(FORMAT).decode()},
    "buildingSoftwareRelease": BUILD,
    "availableSoftwareRelease": BUILD,
    "softwareReleaseError": BUILD,
    "destroyedSoftwareRelease": BUILD,
    "startedComputerPartition": PLACE,
    "stoppedComputerPartition": PLACE,
    "destroyedComputerPartition": PLACE,
    "softwareInstanceError": {**PLACE, "error_log": "x"},
    "useComputer": COMPUTER,
    "updateComputerPartitionRelatedInstanceList": {
        **PLACE,
        "instance_reference_xml": dumps([]).decode(),
    },
    "computerBang": COMPUTER,
    "softwareInstanceBang": PLACE,
    "supplySupply": BUILD,
    "requestComputerPartition": request_form("child") | PLACE,
    "setComputerPartitionConnectionXml": {**PLACE, "connection_xml": dumps({}).decode()},
    "softwareInstanceRename": {**PLACE, "new_name": "x"},
    "getSoftwareReleaseListFromSoftwareProduct": {"software_release_url": RELEASE},
    "getHateoasUrl": {},
    "getComputerPartitionStatus": PLACE,
    "getComputerStatus": COMPUTER,
    "getSoftwareInstallationStatus": BUILD,
    "getHostingSubscriptionIpList": PLACE,
    "requestComputer": {"computer_title": "x", "project_reference": "PROJ-1"},
    "generateComputerCertificate": COMPUTER,
    "revokeComputerCertificate": COMPUTER,
    "Person_requestComputer": {"title": "x"},
}
VALID = "AND validation_state:validated"
QUERIES = (
    f'portal_type:"Instance Tree" {VALID}',
    f'portal_type:"Instance Tree" {VALID} AND title:="web {SECRET}"',
    f'portal_type:"Compute Node" {VALID}',
    f'portal_type:"Compute Node" {VALID} AND reference:="COMP-1"',
    f'portal_type:("Software Instance", "Slave Instance") {VALID}'
    f' AND default_specialise_title:="web {SECRET}"',
    f'portal_type:"Software Installation" {VALID}',
    f'portal_type:"Software Installation" {VALID} AND default_aggregate_reference:="COMP-1"',
)
MODULES = ("instance_tree_module", "compute_node_module", "software_instance_module")
STRANGERS = ("nobody", "P-12", "P-22", "COMP-2", "foreign")
BLUEPRINTS = ("slap_tool", "json_rpc", "hateoas", "http_proxy", "key_delivery")


@dataclass
class Site:
    """A world with an instance, a shared one on it, and a release, in PROJ-1."""

    world: World
    made: dict[str, str]
    ids: dict[str, int]

    def client(self, caller: str) -> FlaskClient:
        if caller == "nobody":
            return self.world.app.test_client()
        return self.world.as_(self.made.get(caller, caller))

    def ask(self, caller: str, name: str) -> TestResponse:
        """Make a JSON-RPC call."""
        body = {
            key: value.format(**self.made) if isinstance(value, str) else value
            for key, value in CALLS[name].items()
        }
        return self.client(caller).post(f"/slapos.{name}", json=body)

    def search(self, caller: str, query: str) -> TestResponse:
        asked = {"mode": "search", "query": query}
        return self.client(caller).get("/hateoas/", query_string=asked)

    def rows(self) -> dict[str, Any]:
        """Return everything that is in the database."""
        with self.world.session() as session:
            connection = session.connection()
            return {t.name: rows_of(connection, t) for t in Base.metadata.sorted_tables}


@pytest.fixture
def site(database_uri: str, settings: Settings, clock: FakeClock) -> Iterator[Site]:
    settings = Settings(database_url=settings.database_url, profile=Profile.FULL)
    app = create_app(settings, clock, FakeIdentifiers(), by_header)
    world = World(app)
    yield furnished(world)
    app.extensions["slapos"].database.close()


def furnished(world: World) -> Site:
    """Have in PROJ-1 what is not to be told, and in PROJ-2 an instance that asks."""
    with world.session() as session:
        world.person(session, 34, (1, Role.SALE_AGENT))
        session.commit()
    parameters = {"_": SECRET}
    title = f"web {SECRET}"
    ordered = request_form(title, parameters=parameters)
    world.as_("P-11").post("/requestComputerPartition", data=ordered)
    made = {"web": world.place(title, "COMP-1", "slappart0")}
    world.as_("P-12").post("/requestComputerPartition", data=request_form("foreign"))
    made["foreign"] = world.place("foreign", "COMP-2", "slappart0")
    published = {"connection_xml": dumps(PUBLISHED).decode()}
    answer = world.as_("COMP-1").post("/setComputerPartitionConnectionXml", data=PLACE | published)
    assert answer.status_code == 200, answer.text
    supplied = world.as_("P-21").post("/supplySupply", data=BUILD)
    assert supplied.status_code == 200, supplied.text
    (row,) = (
        world.as_("P-11")
        .get("/hateoas/", query_string={"mode": "search", "query": QUERIES[0]})
        .get_json()["_embedded"]["contents"]
    )
    number = int(row["relative_url"].rpartition("/")[2])
    return Site(world, made, {"web": number})


def told(site: Site, answer: TestResponse, asked: Any = "") -> list[str]:
    """Return what of PROJ-1 is in an answer, without what the question itself named."""
    named = str(asked)
    things = (SECRET, site.made["web"], "node 1", "10.1.0.")
    return [each for each in things if each in answer.text and each not in named]


def test_every_call_is_in_the_tables_here(site: Site) -> None:
    rules = [
        rule
        for rule in site.world.app.url_map.iter_rules()
        if rule.endpoint.partition(".")[0] in BLUEPRINTS
    ]
    others = {"/hateoas/", "/http_proxy/<scheme>/<netloc><rest_of_path:path>"}
    asked = {f"/slapos.{name}" for name in CALLS} | {f"/{name}" for name in FORMS} | others
    assert {rule.rule for rule in rules} == asked


@pytest.mark.parametrize("caller", STRANGERS)
def test_strangers_are_told_nothing_and_change_nothing(site: Site, caller: str) -> None:
    before = site.rows()
    for name, body in CALLS.items():
        if name == "post.v0.software_instance" and caller == "foreign":
            continue  # an instance asks for what is of its own tree, whatever it names
        answer = site.ask(caller, name)
        # The instance's own name is in its question, and may come back in an error.
        assert not told(site, answer, [body, site.made["web"]]), (name, answer.text)
        assert site.rows() == before, name
    for path, fields in FORMS.items():
        method = "GET" if path.startswith(("get", "register")) else "POST"
        given = {"query_string": fields} if method == "GET" else {"data": fields}
        answer = site.client(caller).open(f"/{path}", method=method, **given)  # type: ignore[arg-type]
        assert not told(site, answer, fields), (path, answer.text)
        assert site.rows() == before, path
    for query in QUERIES:
        answer = site.search(caller, query)
        assert not told(site, answer, query), (query, answer.text)
    for module in MODULES:
        number = 1 if module == "compute_node_module" else site.ids["web"]
        asked = {"mode": "traverse", "relative_url": f"{module}/{number}"}
        answer = site.client(caller).get("/hateoas/", query_string=asked)
        assert answer.status_code in (401, 404), answer.text
        assert not told(site, answer), answer.text
        assert "COMP-1" not in answer.text
    through = site.client(caller).get(f"/http_proxy/{ADDRESS.replace('://', '/')}/")
    assert through.status_code in (401, 403), through.text
    assert site.rows() == before


def test_releases_on_nodes_are_told_to_who_may_see_them(site: Site) -> None:
    """Who sells sees nodes, not what is built on them; no more does an instance."""
    name = "allDocs.v0.compute_node_software_installation_list"
    for caller, sees in {"P-21": True, "P-11": True, "P-34": False, "web": False}.items():
        assert (SECRET in site.ask(caller, name).text) == sees, caller
        assert (SECRET in site.search(caller, QUERIES[5]).text) == sees, caller
        status = site.client(caller).get("/getSoftwareInstallationStatus", query_string=BUILD)
        assert (status.status_code == 200) == sees, (caller, status.text)


def test_who_owns_a_host_is_not_told_what_others_share_on_it(site: Site) -> None:
    """The host itself is: it serves them."""
    world, title = site.world, "another's"
    asked = request_form(title, shared=True, parameters={"_": "hers"}, project_reference="PROJ-1")
    assert world.as_("P-33").post("/requestComputerPartition", data=asked).status_code == 408
    with world.session() as session:
        shared = session.scalars(
            select(SoftwareInstance).where(SoftwareInstance.title == title)
        ).one()
        host = session.scalars(
            select(SoftwareInstance).where(SoftwareInstance.reference == site.made["web"])
        ).one()
        shared.host, shared.node = host, host.node
        shared.stop_waiting()
        session.commit()
    name = "allDocs.v0.instance_node_instance_list"
    assert site.ask("P-11", name).get_json() == {"result_list": []}
    for caller in ("web", "COMP-1", "P-21"):
        (row,) = site.ask(caller, name).get_json()["result_list"]
        assert row["parameters"] == {"_": "hers"}, caller
