"""Recipes that speak with the master: the real buildout, against the real master over HTTP."""

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from werkzeug.serving import WSGIRequestHandler, make_server

from slapos.master.settings import Settings, database_url
from slapos.protocol.http_client import HttpClient, HttpSettings
from slapos.protocol.instance_xml import wrap_json
from slapos.protocol.slap_client import Requester, SlapClient
from tests.database import SqliteTemplate
from tests.integration.recipes.buildouts import failure, profile, run

NODE = "computer"
RELEASE = "https://example.org/software.cfg"
CHILD = "https://example.org/child.cfg"


class Silent(WSGIRequestHandler):
    def log(self, *_arguments: Any) -> None:
        return


@pytest.fixture
def settings(tmp_path: Path, sqlite_template: SqliteTemplate) -> Settings:
    sqlite_template.copy_to(tmp_path / "master.db")
    return Settings(database_url=database_url(str(tmp_path / "master.db")))


@pytest.fixture
def url(app: Flask) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Silent)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def master(url: str) -> Iterator[SlapClient]:
    """A master with a node of three partitions, on which two releases are built."""
    client = SlapClient(HttpClient(HttpSettings(base_url=url)))
    partitions = [
        {
            "reference": f"slappart{number}",
            "address_list": [
                {"addr": f"10.0.0.{number}", "netmask": "255.255.255.0"},
                {"addr": f"fd00::{number}", "netmask": "ffff::"},
            ],
            "tap": {"name": f"tap{number}"},
        }
        for number in range(3)
    ]
    client.post_node_configuration(
        {
            "reference": NODE,
            "address": "127.0.0.1",
            "netmask": "255.0.0.0",
            "partition_list": partitions,
        }
    )
    for release in (RELEASE, CHILD):
        client.supply(release, NODE)
        client.report_available(NODE, release)
    yield client
    client.http.close()


class Instance:
    """An instance, and the partition's directory in which its buildout runs."""

    def __init__(self, master: SlapClient, directory: Path, **request: Any) -> None:
        self.master = master
        self._request = {"software_url": RELEASE, "title": "root", **request}
        self.reference = str(self.ask().partition)
        self.directory = directory / self.reference
        self.directory.mkdir()

    def ask(self, **changes: Any) -> Any:
        self._request |= changes
        return self.master.request(**self._request)

    def profile(self, text: str, name: str = "buildout.cfg", state: str = "started") -> None:
        tail = (
            "\n[slap-connection]\n"
            f"computer-id = {NODE}\npartition-id = {self.reference}\n"
            f"server-url = {self.master.http.base_url}\nsoftware-release-url = {RELEASE}\n"
            f"key-file =\ncert-file =\nrequested-state = {state}\n"
        )
        profile(self.directory, "offline = true\n" + text + tail, name)

    def run(self, *arguments: str) -> str:
        return run(self.directory, *arguments).output

    def fails(self) -> str:
        return failure(self.directory)

    def published(self) -> dict[str, Any]:
        return dict(self.ask().connection)


@pytest.fixture
def instance(master: SlapClient, tmp_path: Path) -> Instance:
    return Instance(master, tmp_path, parameters={"port": "80", "text": "${x:y} $$ ü"})


CONFIGURATION = """
[slap-configuration]
recipe = slapos:slapconfiguration
computer = ${slap-connection:computer-id}
partition = ${slap-connection:partition-id}
url = ${slap-connection:server-url}
configuration.port = 1
configuration.other = default
"""
SHOW = """
[show]
recipe = slapos:template.jinja2
output = ${buildout:directory}/shown.json
context =
  section s slap-configuration
  key ipv4 slap-configuration:ipv4
  key port slap-configuration:configuration.port
  key whole slap-configuration:configuration
inline =
  {% do s.update(ipv4=list(ipv4), ipv6=list(s['ipv6'])) %}{{ s | tojson }}
extensions = jinja2.ext.do
"""


def shown(instance: Instance) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((instance.directory / "shown.json").read_text())
    return values


def test_an_instance_knows_itself(instance: Instance) -> None:
    resources = {"tap": {"name": "tap7", "ipv4_addr": "10.1.1.1"}, "instance_title": "no"}
    (instance.directory.parent / ".slapos-resource").write_text(json.dumps(resources))
    instance.profile("parts = show" + CONFIGURATION + SHOW)
    instance.run()
    values = shown(instance)
    number = instance.reference[-1]
    assert values["ipv4"] == [f"10.0.0.{number}"]
    assert values["ipv6-random"] == f"fd00::{number}"
    assert values["configuration"] == {"port": "80", "text": "${x:y} $$ ü"}
    assert values["configuration.port"] == "80"
    assert values["configuration.text"] == "${x:y} $$ ü"
    assert values["configuration.other"] == "default"
    assert values["slap-software-type"] in ("default", "RootSoftwareInstance")
    assert values["slave-instance-list"] == []
    assert values["instance-title"] == values["root-instance-title"] == "root"
    assert values["instance-state"] == "started"
    assert values["tap-ipv4-addr"] == "10.1.1.1"
    assert "Updating show." in instance.run()
    instance.ask(parameters={"port": "81"})
    instance.run()
    assert shown(instance)["configuration.port"] == "81"


def test_parameters_in_json_keep_their_types(instance: Instance) -> None:
    instance.ask(parameters=wrap_json({"port": 80, "list": [1, {"a": None}]}))
    instance.profile(
        "parts = show" + CONFIGURATION.replace("tion\ncomp", "tion.serialised\ncomp") + SHOW
    )
    instance.run()
    assert shown(instance)["configuration"] == {"port": 80, "list": [1, {"a": None}]}
    assert shown(instance)["configuration.port"] == 80


REQUEST = """
parts = publish
[child]
<= slap-connection
recipe = slapos:request.serialised
software-url = https://example.org/child.cfg
software-type = small
config-size = !py!{'x': [1, 2]}
sla-computer_guid = ${slap-connection:computer-id}
return = url port
[maybe]
<= slap-connection
recipe = slapos:requestoptional
name = An optional one
software-url = https://example.org/child.cfg
return = nothing
[publish]
recipe = slapos:publish
url = ${child:connection-url}
port = ${child:connection-port}
at = ${:url}:${child:connection-port}
maybe = ${maybe:connection-nothing}
"""


def test_a_parent_waits_for_what_its_child_publishes(instance: Instance) -> None:
    instance.profile(REQUEST)
    message = instance.fails()
    assert (
        "[child] waiting for child: not ready yet, it has not published url, port\n"
        in message + "\n"
    )
    child = instance.master.request(
        software_url=CHILD,
        title="child",
        software_type="small",
        parameters=wrap_json({"size": {"x": [1, 2]}}),
        filters={"computer_guid": NODE},
        requester=Requester(NODE, instance.reference),
    )
    information = instance.master.partition_information(NODE, str(child.partition))
    assert json.loads(information.parameters["_"]) == {"size": {"x": [1, 2]}}
    assert information.software_type == "small"
    values = wrap_json({"url": "http://child", "port": 80})
    instance.master.publish(NODE, str(child.partition), values)
    output = instance.run()
    assert "waiting for An optional one: not ready yet" in output
    assert instance.published() == {
        "url": "http://child",
        "port": "80",
        "at": "http://child:80",
        "maybe": None,
    }
    requested = instance.directory / f".slapos-request-transaction-{instance.reference}"
    assert sorted(requested.read_text().splitlines()) == ["An optional one", "child"]


def test_a_stopped_parent_stops_its_children(instance: Instance) -> None:
    instance.profile(
        "parts = child\n[child]\n<= slap-connection\nrecipe = slapos:request\n"
        f"software-url = {CHILD}\n",
        state="stopped",
    )
    instance.run()
    partitions = instance.master.node_information(NODE).partitions
    assert {str(p.state) for p in partitions if p.software_url == CHILD} == {"stopped"}


def test_a_request_that_is_refused_says_why(instance: Instance) -> None:
    instance.profile(
        "parts = child\n[child]\n<= slap-connection\nrecipe = slapos:request\n"
        "sla-computer_guid = no-such-node\n"
    )
    message = instance.fails()
    assert "[child] " in message
    assert "child" in message.splitlines()[0]


EARLY = """
parts = publish
[early]
recipe = slapos:publish-early
-init =
  password make:passwd
[make]
recipe = slapos:generate.password
storage-path = ${buildout:directory}/secret
[publish]
recipe = slapos:publish.serialised
-extends = early
list = !py![1, {'b', 'a'}]
"""


def test_a_secret_survives_the_loss_of_the_partition(instance: Instance) -> None:
    instance.profile(EARLY)
    instance.run()
    published = json.loads(instance.published()["_"])
    assert published["list"] == [1, ["a", "b"]]
    assert len(published["password"]) == 16
    secret = published["password"]
    assert secret not in (instance.directory / ".installed.cfg").read_text()
    instance.run()
    shutil.rmtree(instance.directory)
    instance.directory.mkdir()
    instance.profile(EARLY)
    instance.run()
    assert json.loads(instance.published()["_"])["password"] == secret
    assert (instance.directory / "secret").read_text() == secret


def test_a_secret_that_is_used_before_it_is_known_is_refused(instance: Instance) -> None:
    instance.profile(EARLY.replace("parts = publish", "parts = make publish"))
    assert "[make] is in use already" in instance.fails()


SWITCH = """
parts = switch
[switch]
recipe = slapos:switch-softwaretype
default = inner:output
other = ${buildout:directory}/other.cfg
[inner]
recipe = slapos:template
output = ${buildout:directory}/inner.cfg
inline =
  [buildout]
  parts = directory
  [directory]
  recipe = slapos:mkdirectory
  made = $${buildout:directory}/made-$${slap-configuration:configuration.port}
  text = $${buildout:directory}/$${own:text}
  [own]
  text = $${slap-configuration:instance-title}-$${slap-connection:partition-id}
"""


def test_the_profile_of_the_wanted_type_runs(instance: Instance) -> None:
    instance.profile(SWITCH + CONFIGURATION)
    instance.run()
    made = {path.name for path in instance.directory.iterdir() if path.is_dir()}
    assert {"made-80", f"root-{instance.reference}"} <= made
    inner = (instance.directory / ".installed-switch.cfg").read_text()
    assert "\n[directory]\n" in inner
    assert "\n[directory]\n" not in (instance.directory / ".installed.cfg").read_text()
    again = instance.run()
    assert "Updating directory." in again
    assert again.count("Updating switch.") == 1


def test_an_unknown_type_is_told_with_the_known_ones(master: SlapClient, tmp_path: Path) -> None:
    instance = Instance(master, tmp_path, software_type="nonsense")
    instance.profile(SWITCH + CONFIGURATION)
    assert (
        "[switch] this release has no software type 'nonsense'; it has: default, other"
        in instance.fails()
    )


SCHEMAS = {
    "software.cfg.json": {
        "name": "tried",
        "serialisation": "json-in-xml",
        "software-type": {"default": {"request": "input.json", "response": "input.json"}},
    },
    "input.json": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "port": {"type": "integer", "maximum": 65535},
            "database": {
                "type": "object",
                "default": {},
                "properties": {"name": {"type": "string", "default": "main"}},
            },
        },
    },
}
CHECKED = (
    CONFIGURATION.replace("tion\ncomp", "tion.jsonschema\ncomp").split("configuration.port")[0]
    + "jsonschema = ${buildout:directory}/software.cfg.json\n"
    + "set-default = main\nunstringify = main\n"
)


def test_parameters_are_checked_and_the_master_hears_of_it(instance: Instance, app: Flask) -> None:
    for name, document in SCHEMAS.items():
        (instance.directory / name).write_text(json.dumps(document))
    instance.profile("parts = show" + CHECKED + SHOW)
    instance.ask(parameters=wrap_json({"port": "80"}))
    instance.run()
    assert shown(instance)["configuration"] == {"port": 80, "database": {"name": "main"}}
    instance.ask(parameters=wrap_json({"port": 70000, "databse": {}}))
    message = instance.fails()
    assert "$.port: must be at most 65535, not 70000" in message
    assert "$.databse: there is no such parameter; did you mean 'database'?" in message
    tree = app.test_client().get("/v1/instance-trees/root").get_json()
    assert "must be at most 65535" in json.dumps(tree)


def test_a_master_that_is_gone_is_told_in_one_line(instance: Instance) -> None:
    instance.profile("parts = show" + CONFIGURATION + SHOW)
    text = (instance.directory / "buildout.cfg").read_text()
    gone = text.replace(instance.master.http.base_url, "http://127.0.0.1:9/")
    (instance.directory / "buildout.cfg").write_text(gone)
    message = instance.fails()
    assert "[slap-configuration] http://127.0.0.1:9/ does not answer" in message
