"""A day of a provider: three nodes, three customers in two projects, a master on PostgreSQL."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from slapos.protocol.certificate_request import make_key, make_request
from tests.database import Postgresql
from tests.e2e.counted import starts, write_release
from tests.e2e.deployment import until
from tests.e2e.provider import Person, Provider, provided

pytestmark = pytest.mark.e2e


@pytest.fixture
def provider(postgresql: Postgresql) -> Iterator[Provider]:
    root = Path(tempfile.mkdtemp(prefix="slapos-day-", dir="/tmp"))
    try:
        database = postgresql.url(postgresql.empty())
        with provided(root, database, node_lost_after="30") as made:
            yield made
    finally:
        shutil.rmtree(root, ignore_errors=True)


def offer(manager: Person, project: str, url: str, *nodes: str) -> None:
    """Have a release ordered in a project, on its nodes."""
    product = manager.ask("POST", "v1/products", {"project": project, "title": "counted"})
    path = f"v1/products/{product['reference']}"
    manager.ask("POST", f"{path}/releases", {"url": url, "version": "1"})
    manager.ask("POST", f"{path}/types", {"name": "default"})
    manager.ask("POST", f"{path}/types", {"name": "deep2"})
    manager.ask("PATCH", path, {"state": "published"})
    cells = [
        {"product": product["reference"], "release": url, "type": kind}
        for kind in ("default", "deep2")
    ]
    supply = {"project": project, "title": "all", "nodes": [*nodes], "cells": cells}
    manager.ask("POST", "v1/supplies", supply)


def is_busy(manager: Person, node: str, partition: str) -> bool:
    """Return whether a partition is busy."""
    found = manager.ask("GET", f"v1/nodes/{node}/partitions")["partitions"]
    states = {each["reference"]: each["state"] for each in found}
    return bool(states[partition] == "busy")


def phase_of(person: Person, title: str) -> str:
    """Return how the root instance of a service does."""
    return str(person.trees()[title]["instances"][0]["phase"])


def join_token(manager: Person, project: str, title: str) -> str:
    asked = {"project": project, "title": title}
    token: str = manager.ask("POST", "v1/nodes/join-tokens", asked)["token"]
    return token


def test_a_day(provider: Provider) -> None:  # noqa: PLR0915 - a day is long, and reads as one
    url = write_release(provider.root / "release")

    # People and projects.
    administrator = provider.person("administrator@example.com", "administrator")
    shop = administrator.ask("POST", "v1/projects", {"title": "shop"})["reference"]
    lab = administrator.ask("POST", "v1/projects", {"title": "lab"})["reference"]
    managers = {
        project: provider.person(f"manager-{n}@example.com", "production_manager", project=project)
        for n, project in enumerate((shop, lab))
    }
    customer = provider.person("customer-1@example.com", "customer", project=shop)
    neighbour = provider.person("customer-2@example.com", "customer", project=shop)
    stranger = provider.person("customer-3@example.com", "customer", project=lab)

    # Machines join; a token is good once, and for its name.
    token = join_token(managers[shop], shop, "edge-1")
    first = provider.join("edge-1", token, "127.210.0.0/24")
    second = provider.join("edge-2", join_token(managers[lab], lab, "edge-2"), "127.211.0.0/24")
    third = provider.join("edge-3", join_token(managers[shop], shop, "edge-3"), "127.212.0.0/24")
    used = {"token": token, "name": "edge-1", "certificate_request": make_request(make_key(), "x")}
    again = requests.post(
        f"{provider.url}v1/nodes/join", json=used, verify=str(provider.authority), timeout=60
    )
    assert (again.status_code, again.json()["error"]) == (403, "token_invalid")
    offer(managers[shop], shop, url, first, third)
    offer(managers[lab], lab, url, second)

    # Orders, each in its project, on the project's node; a child is asked for with a certificate.
    on_first = {"sla_parameters": {"computer_guid": first}}
    customer.order("web", url, parameters={"value": "1"}, **on_first)
    neighbour.order("web", url, parameters={"value": "2"}, **on_first)
    stranger.order("tree", url, software_type="deep2", parameters={"value": "3"})
    for person, title in ((customer, "web"), (neighbour, "web"), (stranger, "tree")):
        until(lambda p=person, t=title: p.is_healthy(t), f"{title} is healthy", 240)  # type: ignore[misc]
    assert len(stranger.trees()["tree"]["instances"]) == 2
    assert {each["node"] for each in stranger.trees()["tree"]["instances"]} == {second}
    (mine,) = customer.trees()["web"]["instances"]
    assert mine["node"] == first
    assert set(customer.trees()) == {"web"}

    # What is another's is not there.
    foreign = {"instance_guid": mine["guid"]}
    stranger.ask("POST", "slapos.get.v0.software_instance", foreign, status=403)
    neighbour.ask("POST", "slapos.get.v0.software_instance", foreign, status=403)
    stranger.ask("GET", f"v1/nodes/{first}", status=404)

    # A stop, and a start.
    customer.order("web", url, parameters={"value": "1"}, state="stopped", **on_first)
    until(lambda: customer.is_healthy("web"), "web is stopped", 120)
    customer.order("web", url, parameters={"value": "1"}, **on_first)
    until(lambda: customer.is_healthy("web"), "web is started", 120)

    # A share of what another one runs, which the project's manager allows.
    (hosting,) = neighbour.trees()["web"]["instances"]
    managers[shop].ask(
        "POST", "v1/instance-nodes", {"title": "for all", "instance": hosting["guid"]}
    )
    share = customer.order("share", url, parameters={"colour": "blue"}, shared=True)
    assert share["compute_partition_id"] == hosting["partition"]
    customer.order("share", url, shared=True, state="destroyed")

    # A rename: the same instance.
    renamed = foreign | {"title": "site"}
    customer.ask("POST", "slapos.put.v0.software_instance_title", renamed)
    assert set(customer.trees()) == {"site"}

    # The authority is changed while all goes on.
    provider.command("master", "ca", "rotate")
    assert provider.command("master", "ca", "show", "--pem").count("BEGIN CERT") == 2

    # The master restarts: nothing is lost, and nothing was started anew for it.
    partition = provider.root / "edge-1" / "inst" / mine["partition"]
    before = starts(partition)
    provider.stop("master")
    provider.start()
    neighbour.order("second", url, parameters={"value": "4"}, sla_parameters={"reallocate": "true"})
    until(lambda: neighbour.is_healthy("second"), "an order after the restart", 240)
    assert starts(partition) == before

    # A node is lost, and what may go elsewhere does.
    lost = {first: "edge-1", third: "edge-3"}[neighbour.trees()["second"]["instances"][0]["node"]]
    other = {"edge-1": third, "edge-3": first}[lost]
    provider.stop(lost)
    until(lambda: neighbour.trees()["second"]["instances"][0]["node"] == other, "it has moved", 240)
    until(lambda: phase_of(neighbour, "second") == "healthy", "it runs there", 120)
    provider.start_node(lost)
    until(lambda: neighbour.is_healthy("second"), "what was left on the lost node is removed", 120)

    # A backup, and all that comes after it undone.
    backup = provider.root / "yesterday.backup"
    provider.command("master", "backup", str(backup))
    customer.order("undone", url, parameters={"value": "5"})
    provider.stop("master")
    provider.command("master", "restore", "--force", str(backup))
    provider.start()
    administrator, customer = (
        provider.again("administrator@example.com"),
        provider.again("customer-1@example.com"),
    )
    managers[shop] = provider.again("manager-0@example.com")
    assert set(customer.trees()) == {"site"}
    until(lambda: customer.is_healthy("site"), "site goes on as of the backup", 240)

    # Destroyed, and its partition is free again.
    customer.order("site", url, state="destroyed", **on_first)
    until(lambda: not customer.trees(), "site is gone", 120)
    until(lambda: not is_busy(managers[shop], first, mine["partition"]), "it is free", 120)
    told = managers[shop].ask("GET", "v1/audit?limit=500")
    assert told["entries"], told

    for which in ("master", "edge-1", "edge-2", "edge-3"):
        assert "Traceback" not in provider.log(which), provider.log(which)[-4000:]
