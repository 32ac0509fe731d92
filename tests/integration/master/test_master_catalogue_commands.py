"""`slapos master node|product|supply`: what an operator does on the master's machine."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slapos.command.main import main
from slapos.master.database import open_database
from slapos.master.identity.caller import SYSTEM
from slapos.master.nodes import service as nodes
from slapos.master.settings import database_url
from slapos.system.clock import SystemClock

URL = "https://example.org/software.cfg"
Command = Callable[..., Any]


@pytest.fixture
def command(tmp_path: Path, database_uri: str, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run `slapos master …` on a master with one node; return what --json has printed."""
    cfg = tmp_path / "master.cfg"
    cfg.write_text(f"[slapos-master]\ndatabase_uri = {database_uri}\n")
    database = open_database(database_url(database_uri), caller=SYSTEM)
    with database.writing.begin() as session:
        nodes.create(session, SystemClock(), 1, "rack 1")
    database.close()

    def run(*words: str, status: int = 0) -> Any:
        assert main(["master", *words, "--cfg", str(cfg), "--json"]) == status
        return json.loads(capsys.readouterr().out)

    return run


def test_a_node_is_listed_set_shown_and_removed(command: Command) -> None:
    (listed,) = command("node", "list")["nodes"]
    reference = listed["reference"]
    assert (listed["title"], listed["project"], listed["contact"]) == ("rack 1", "PROJ-1", None)
    words = ("--capacity", "7", "--category", "region=eu", "--category", "cpu_core=8")
    shown = command("node", "set", reference, "--scope", "close/maintenance", *words)
    assert shown["categories"] == {"cpu_core": "8", "region": "eu"}
    command("node", "set", reference, "--category", "cpu_core=", "--capacity", "none")
    shown = command("node", "show", reference)
    assert (shown["categories"], shown["capacity"]) == ({"region": "eu"}, None)
    assert shown["free partitions"] == 0
    assert len(command("node", "list", "--category", "region=eu", "--title", "RACK")["nodes"]) == 1
    assert command("node", "list", "--scope", "open")["nodes"] == []
    assert command("node", "remove", reference) == {"removed": reference}
    assert command("node", "list")["nodes"] == []


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("show",), "show needs a NODE"),
        (("list", "COMP-1"), "list takes no NODE"),
        (("show", "COMP-999"), "there is no node 'COMP-999'"),
        (("set", "COMP-999", "--scope", "ajar"), "there is no node"),
        (("list", "--scope", "ajar"), "--scope is ajar; it can be open"),
        (("list", "--category", "region"), "such as region=eu"),
        (("list", "--category", "colour=red"), "there is no category 'colour'"),
    ],
)
def test_a_slip_about_nodes_is_explained(
    command: Command, words: tuple[str, ...], reason: str
) -> None:
    assert reason in command("node", *words, status=1)["error"]["message"]


def test_a_product_is_offered_on_all_nodes(command: Command) -> None:
    release = ("--url", URL, "--release-version", "1")
    types = ("--type", "default", "--type", "large=4")
    words = ("--project", "PROJ-1", *release, *types, "--publish")
    (product,) = command("product", "add", "web", *words)["products"]
    assert product["state"] == "published"
    assert (product["releases"], product["types"]) == ([URL], ["default", "large"])
    reference = product["reference"]
    newer = "https://example.org/2/software.cfg"
    (product,) = command("product", "add-release", reference, "--url", newer)["products"]
    assert product["releases"] == [newer, URL]
    assert command("product", "list", "--project", "PROJ-1")["products"] == [product]
    assert command("product", "show", reference)["products"] == [product]
    only = ("--product", reference, "--type", "large", "--no-install-by-need")
    (supply,) = command("supply", "add", "all", *only, "--all-nodes")["supplies"]
    assert supply["nodes"] == 1
    assert supply["cells"] == [{"release": url, "type": "large"} for url in (URL, newer)]
    assert (supply["enabled"], supply["installs_by_need"]) == (True, False)
    name = supply["reference"]
    assert command("supply", "list", "--project", "PROJ-1")["supplies"] == [supply]
    assert command("supply", "disable", name)["supplies"] == [supply | {"enabled": False}]
    assert command("supply", "enable", name)["supplies"] == [supply]
    (node,) = command("node", "list")["nodes"]
    emptied = command("supply", "remove-nodes", name, "--node", node["reference"])["supplies"]
    assert emptied[0]["nodes"] == 0
    again = command("supply", "add-nodes", name, "--node", node["reference"])["supplies"]
    assert again == command("supply", "show", name)["supplies"] == [supply]
    message = command("product", "remove", reference, status=1)["error"]["message"]
    assert "withdraw it first" in message
    (withdrawn,) = command("product", "withdraw", reference)["products"]
    assert withdrawn["state"] == "withdrawn"
    assert command("product", "publish", reference)["products"][0]["state"] == "published"
    command("product", "withdraw", reference)
    command("supply", "remove", name)
    assert command("product", "remove", reference)["products"][0]["state"] == "removed"
    assert command("supply", "list")["supplies"] == command("product", "list")["products"] == []


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("product", "add", "web"), "add needs --project"),
        (("product", "add", "x", "--project", "PROJ-1", "--type", "a=b"), "such as large=4"),
        (("product", "add-release", "PROD-1"), "needs --url"),
        (("product", "add", "x", "--project", "PROJ-9"), "there is no project 'PROJ-9'"),
        (("supply", "add", "x"), "add needs --product"),
        (("supply", "add", "x", "--product", "PROD-9"), "no software product 'PROD-9'"),
        (("supply", "add-nodes", "SUPPLY-9"), "needs --node COMP-n or --all-nodes"),
        (("supply", "remove-nodes", "SUPPLY-9"), "needs --node COMP-n"),
        (("supply", "show", "SUPPLY-9"), "no allocation supply 'SUPPLY-9'"),
    ],
)
def test_a_slip_about_the_catalogue_is_explained(
    command: Command, words: tuple[str, ...], reason: str
) -> None:
    assert reason in command(*words, status=1)["error"]["message"]


def test_a_machine_gets_a_token_to_join_with(
    tmp_path: Path, empty_database_uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    url, cfg = "https://master.example.com/", tmp_path / "master.cfg"
    cfg.write_text(f"[slapos-master]\ndatabase_uri = {empty_database_uri}\npublic_url = {url}\n")
    common = ("--cfg", str(cfg), "--json")
    assert main(["master", "init", "--cfg", str(cfg), "--quiet"]) == 0
    capsys.readouterr()
    assert main(["master", "node", "token", "rack 2", "--project", "PROJ-1", *common]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["token"].startswith("sj1.")
    begin = f"slapos node register --master {url} --token "
    assert made["command"] == f"{begin}{made['token']} --name 'rack 2'"
    assert main(["master", "node", "token", "rack 2", *common]) == 1
    assert "needs --project" in capsys.readouterr().err


def test_tables_are_for_people(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--project", "PROJ-1", "--url", URL, "--type", "default")
    product = command("product", "add", "web", *words)["products"][0]["reference"]
    command("supply", "add", "all", "--product", product, "--all-nodes")
    for name, cell in (("node", "rack 1"), ("product", URL), ("supply", f"default of {URL}")):
        assert main(["master", name, "list", "--cfg", str(tmp_path / "master.cfg")]) == 0
        header, line = capsys.readouterr().out.splitlines()
        assert header.startswith("REFERENCE")
        assert cell in line
