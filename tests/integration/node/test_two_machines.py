"""Masters on two machines, with one database: whatever is said to one, the other knows.

Each machine is a network namespace with a folder of its own; what they share is PostgreSQL (by its
socket) and the secret file, as they would on machines of their own.
"""

import ctypes
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from slapos.node.enrolment.node_certificate import node_credentials
from slapos.node.settings import NodeSettings, read_node_settings
from slapos.protocol.http_client import HttpClient
from slapos.protocol.slap_client import SlapClient
from tests.database import Postgresql
from tests.integration.master.test_master_commands import START, configured, log_of, master
from tests.integration.node.world import until

EMAIL, PASSWORD = "customer-1@example.com", "correct horse battery staple"
URL = "https://example.org/software.cfg"
NEW_NETWORK = 0x40000000
IN_A_NAMESPACE = ("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
LIBC = ctypes.CDLL(None, use_errno=True)


def _has_namespaces() -> bool:
    if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "ip"))):
        return False
    tried = subprocess.run([*IN_A_NAMESPACE, "true"], capture_output=True, check=False)
    return tried.returncode == 0


pytestmark = pytest.mark.skipif(
    not _has_namespaces(), reason="network namespaces need root, unshare and ip"
)


@dataclass
class Machine:
    """A machine with masters on it; `session` is that of who asks there."""

    cfg: Path
    process: subprocess.Popen[str]
    url: str
    session: requests.Session

    @contextmanager
    def here(self) -> Iterator[None]:
        """Have this thread, and what it starts, be on the machine."""
        with (
            Path(f"/proc/self/task/{threading.get_native_id()}/ns/net").open() as home,
            Path(f"/proc/{self.process.pid}/ns/net").open() as there,
        ):
            _enter(there.fileno())
            try:
                yield
            finally:
                _enter(home.fileno())

    def ask(self, method: str, path: str, body: object = None) -> Any:
        with self.here():
            answer = self.session.request(method, f"{self.url}v1/{path}", json=body, timeout=30)
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def kill(self) -> None:
        """End all its processes at once, as a loss of power would."""
        below = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        for each in below:
            each.kill()
        self.process.wait()


def _enter(namespace: int) -> None:
    if LIBC.setns(namespace, NEW_NETWORK) != 0:
        raise OSError(ctypes.get_errno(), "setns")


@contextmanager
def started(cfg: Path) -> Iterator[Machine]:
    words = [*IN_A_NAMESPACE, *START, "start", "--cfg", str(cfg)]
    with (
        log_of(cfg).open("a") as log,
        subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log, text=True) as process,
        requests.Session() as session,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("listening on "), log_of(cfg).read_text()
            session.verify = str(cfg.parent.parent / "authority.pem")
            session.trust_env = False
            yield Machine(cfg, process, line.split()[-1], session)
        finally:
            process.terminate()
            process.communicate(timeout=60)


@pytest.fixture
def machines(tmp_path: Path, postgresql: Postgresql) -> Iterator[tuple[Machine, Machine]]:
    """Two machines with two web processes each, and a manager who has signed in at both."""
    uri, folders = postgresql.url(postgresql.empty()), (tmp_path / "one", tmp_path / "two")
    for folder in folders:
        folder.mkdir()
    secret = str(tmp_path / "secret")
    cfgs = [configured(each, uri, tls="true", workers="2", secret_file=secret) for each in folders]
    done = master("init", cfg=cfgs[0])
    assert done.returncode == 0, done.stderr
    (tmp_path / "authority.pem").write_text(master("ca", "show", "--pem", cfg=cfgs[0]).stdout)
    words = ("user", "invite", EMAIL, "--role", "administrator", "--json")
    token = json.loads(master(*words, cfg=cfgs[0]).stdout)["link"].partition("token=")[2]
    with ExitStack() as stack:
        one, two = (stack.enter_context(started(cfg)) for cfg in cfgs)
        asked = {"token": token, "name": "one", "password": PASSWORD}
        one.ask("POST", "invitations/acceptance", asked)
        two.ask("POST", "sign-in", {"email": EMAIL, "password": PASSWORD})
        yield one, two


def joined(machine: Machine, folder: Path, project: str) -> Path:
    """Have a node join at a machine, with one partition; return its settings file."""
    made = machine.ask("POST", "nodes/join-tokens", {"title": "edge", "project": project})
    cfg = folder / "slapos.cfg"
    cfg.write_text(
        f"[slapos]\nsoftware_root = {folder}/soft\ninstance_root = {folder}/inst\n"
        "root_check = false\n\n[slapformat]\npartition_amount = 1\nalter_user = false\n"
        "ipv4_local_network = 127.0.201.0/24\n"
    )
    run(
        machine,
        cfg,
        "register",
        "--master",
        machine.url,
        "--token",
        made["token"],
        "--name",
        "edge",
    )
    run(machine, cfg, "format", "--now")
    return cfg


def run(machine: Machine, cfg: Path, *words: str) -> None:
    with machine.here():
        done = subprocess.run(
            [sys.executable, "-m", "slapos.command", "node", *words, "--cfg", str(cfg)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr


class Node:
    """A node that asks at one machine or the other, by the same certificate."""

    def __init__(self, cfg: Path) -> None:
        self._settings: NodeSettings = read_node_settings(cfg, {})
        self.reference = self._settings.computer_id

    @contextmanager
    def at(self, machine: Machine) -> Iterator[HttpClient]:
        found = node_credentials(self._settings)
        assert found is not None
        settings = found.http_settings()
        here = type(settings)(**{**vars(settings), "base_url": machine.url})
        with machine.here(), closing(HttpClient(here)) as http:
            yield http

    def told(self, machine: Machine) -> dict[str, str]:
        """Return what is in which partition, by what a machine says."""
        with self.at(machine) as http:
            found = SlapClient(http).node_information(self.reference)
        return {each.reference: each.title or "" for each in found.partitions}

    def token(self, machine: Machine) -> str:
        return str(self.changes(machine)["token"])

    def changes(self, machine: Machine, **query: str) -> dict[str, Any]:
        with self.at(machine) as http:
            answer = http.request("GET", f"v1/nodes/{self.reference}/changes", query=query)
            found: dict[str, Any] = json.loads(answer.content)
            return found

    @contextmanager
    def waiting(self, machine: Machine) -> Iterator[list[dict[str, Any]]]:
        """Wait at a machine for a change, and yield where it is told of it."""
        told: list[dict[str, Any]] = []
        since = self.token(machine)
        thread = threading.Thread(
            target=lambda: told.append(self.changes(machine, since=since, wait="50")), daemon=True
        )
        thread.start()
        yield told
        thread.join(30)
        assert not thread.is_alive()


def test_whatever_is_said_to_one_the_other_knows(
    machines: tuple[Machine, Machine], tmp_path: Path
) -> None:
    one, two = machines
    project = one.ask("POST", "projects", {"title": "first"})["reference"]
    node = Node(cfg := joined(two, tmp_path, project))
    product = one.ask("POST", "products", {"project": project, "title": "web"})["reference"]
    one.ask("POST", f"products/{product}/releases", {"url": URL, "version": "1"})
    one.ask("POST", f"products/{product}/types", {"name": "default"})
    one.ask("PATCH", f"products/{product}", {"state": "published"})
    cell = {"product": product, "release": URL, "type": "default"}
    supply = {"project": project, "title": "all", "nodes": [node.reference], "cells": [cell]}
    one.ask("POST", "supplies", supply)

    def order(machine: Machine, title: str) -> dict[str, Any]:
        asked = {"project": project, "title": title, "software_url": URL}
        found: dict[str, Any] = machine.ask("POST", "instance-trees", asked)
        return found

    # An order at one is heard by the node that waits at the other.
    with node.waiting(two) as told:
        order(one, "first")
    assert told[0]["changed"]
    assert node.told(two) == node.told(one) == {"slappart0": "first"}

    # One that waits is placed, once, when the node says to one that it has room.
    order(two, "second")
    before = _placed(one)
    cfg.write_text(cfg.read_text().replace("partition_amount = 1", "partition_amount = 2"))
    with node.waiting(one):
        run(two, cfg, "format", "--now")
    until(lambda: "second" in node.told(one).values(), "the second is placed")
    assert node.told(two) == {"slappart0": "first", "slappart1": "second"}
    assert _placed(two) == _placed(one) == before + 1

    # One machine is lost: who waits at the other, and the work by itself, go on there.
    tree = next(
        each["reference"]
        for each in one.ask("GET", "instance-trees")["instance_trees"]
        if each["title"] == "first"
    )
    with node.waiting(one) as told:
        two.kill()
        one.ask("PATCH", f"instance-trees/{tree}", {"parameters": {"a": "1"}})
    assert told[0]["changed"]
    one.ask("POST", "tasks/allocate_instances/run")
    until(lambda: not _waits(one, "allocate_instances"), "the other does the tasks")
    assert node.told(one) == {"slappart0": "first", "slappart1": "second"}


def _task(machine: Machine, name: str) -> dict[str, Any]:
    found = machine.ask("GET", "tasks")["tasks"]
    return next(each for each in found if each["name"] == name)


def _placed(machine: Machine) -> int:
    return int(_task(machine, "allocate_instances")["total"])


def _waits(machine: Machine, name: str) -> int:
    return int(_task(machine, name)["waiting"])
