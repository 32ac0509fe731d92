"""The releases of `software/`, ordered, built, running and promising, on a machine of their own."""

import json
import os
import re
import signal
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.machine import CHECKOUT, Machine

pytestmark = pytest.mark.e2e
SOFTWARE = CHECKOUT / "software"


def order(machine: Machine, title: str, release: str, *parameters: str) -> dict[str, Any]:
    """Order an instance, wait until its tree is healthy, and return what it published."""
    words = ["--parameters", *parameters] if parameters else []
    path = str(SOFTWARE / release)
    machine.slapos("request", title, path, "--wait", "--timeout", "240", *words, "--quiet")
    information = machine.json("service", "info", title)
    published: dict[str, Any] = information["connection-parameters"]["_"]
    return published


def until(holds: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.2)


def ask(url: str, *, method: str = "GET", login: str = "", data: Any = None) -> tuple[int, Any]:
    headers = {"Content-Type": "application/json"}
    if login:
        headers["Authorization"] = f"Basic {b64encode(login.encode()).decode()}"
    body = None if data is None else json.dumps(data).encode()
    request = urllib.request.Request(url, body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, None
    except OSError:
        return 0, None


def partition_of(machine: Machine, service: str, title: str) -> Path:
    tree = machine.json("service", "info", service)["tree"]
    (name,) = [instance["partition"] for instance in tree if instance["title"] == title]
    return machine.directory / "inst" / str(name)


@pytest.fixture(scope="module")
def supplied(machine: Machine) -> Machine:
    for release in ("helloworld", "postgres", "kinto"):
        machine.slapos("supply", str(SOFTWARE / release), "local")
    return machine


def test_helloworld_greets_whom_it_is_told_to(supplied: Machine) -> None:
    url = order(supplied, "hello", "helloworld", "name=Alice & <Bob>")["url"]

    def page() -> str:
        with urllib.request.urlopen(url, timeout=10) as response:
            return str(response.read().decode())

    assert "Hello Alice &amp; &lt;Bob&gt;!" in page()
    order(supplied, "hello", "helloworld", "name=Carol")
    assert "Hello Carol!" in page()


def test_kinto_keeps_its_data_whatever_ends(supplied: Machine) -> None:
    published = order(supplied, "blog", "kinto", "workers=1", "postgres.max-connections=50")
    url, login = published["url"], f"{published['user']}:{published['password']}"
    bucket = f"{url}buckets/blog"
    assert ask(bucket, method="PUT", login="admin:wrong")[0] == 401
    assert ask(bucket, method="PUT", login=login)[0] == 201

    # PostgreSQL is killed in the middle of its work, and heals.
    database = partition_of(supplied, "blog", "postgres")
    first = (database / "srv/postgresql/postmaster.pid").read_text().split()[0]
    os.kill(int(first), signal.SIGKILL)
    until(lambda: ask(f"{url}__heartbeat__")[0] == 200, "healthy after a kill")
    assert ask(bucket, login=login)[0] == 200

    # A change of a parameter of PostgreSQL goes through Kinto, and restarts it.
    order(supplied, "blog", "kinto", "workers=1", "postgres.max-connections=60")
    assert "max_connections = 60" in (database / "etc/postgresql.conf").read_text()
    until(lambda: ask(f"{url}__heartbeat__")[0] == 200, "healthy after a change")
    again = order(supplied, "blog", "kinto", "workers=1", "postgres.max-connections=60")
    assert again == published, "passwords stay"
    assert ask(bucket, login=login)[0] == 200

    # Stopped, with clients connected, and started again.
    path = str(SOFTWARE / "kinto")
    supplied.slapos("request", "blog", path, "--state", "stopped", "--wait", "--timeout", "120")
    until(lambda: ask(f"{url}__heartbeat__")[0] == 0, "stopped")
    assert order(supplied, "blog", "kinto") == published
    assert ask(bucket, login=login)[0] == 200
    assert not (database / "srv/postgresql.unfinished").exists()


def test_postgres_can_be_used_by_its_owner(supplied: Machine) -> None:
    published = order(supplied, "shop", "postgres", "database=shop", "user=keeper")
    assert published["url"].startswith("postgresql://keeper:")
    psql = partition_of(supplied, "shop", "shop") / "bin/psql"
    made = supplied.run(str(psql), "-c", "CREATE TABLE sold (what text)")
    assert made.returncode == 0, made.stderr
    refused = supplied.run(str(psql), "-c", "CREATE ROLE another")
    assert refused.returncode != 0, "the owner is no superuser"


def test_the_tutorial_leads_to_a_release_that_works(machine: Machine) -> None:
    text = (CHECKOUT / "docs/tutorial/first-release.md").read_text()
    blocks = re.findall(r"`quotes/([\w.-]+)`.*?^```\w+\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    names = {name for name, _ in blocks}
    assert names >= {"software.cfg", "instance.cfg.in", "software.cfg.json", "serve.py"}
    folder = machine.directory / "quotes"
    folder.mkdir()
    for name, content in blocks:
        (folder / name).write_text(content)
    machine.slapos("supply", str(folder), "local")
    url = order(machine, "mine", str(folder), "quote=Slow and steady")["url"]
    with urllib.request.urlopen(url, timeout=10) as response:
        assert response.read().decode().strip() == "Slow and steady"
