"""A greeting: an instance of software/helloworld on a machine, and what can be seen of it."""

import json
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from tests.e2e.machine import CHECKOUT, Machine

RELEASE = str(CHECKOUT / "software" / "helloworld")


def until(holds: Callable[[], object], what: str, seconds: float = 60) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.1)


@dataclass
class Greeting:
    """One order of helloworld: where its page is, and in which partition."""

    machine: Machine
    title: str
    url: str = ""
    partition: Path = Path()

    @classmethod
    def ordered(cls, machine: Machine, title: str, name: str) -> "Greeting":
        """Order one that greets `name`, and wait until it is healthy."""
        made = cls(machine, title)
        made.order(name)
        information = machine.json("service", "info", title)
        made.url = information["connection-parameters"]["_"]["url"]
        made.partition = machine.directory / "inst" / information["tree"][0]["partition"]
        return made

    def order(self, name: str) -> None:
        """Have it greet `name`, and wait until it is healthy."""
        words = ["--parameters", f"name={name}", "--wait", "--timeout", "120", "--quiet"]
        self.machine.slapos("request", self.title, RELEASE, *words)

    def page(self) -> str:
        """Return what is at its URL, nothing when nobody answers."""
        try:
            with urllib.request.urlopen(self.url, timeout=10) as response:
                return str(response.read().decode())
        except OSError:
            return ""

    def processes(self) -> list[int]:
        """Return the ids of the web servers that are there for its URL."""
        address = str(urlsplit(self.url).hostname)
        return [
            process.pid
            for process in psutil.process_iter(["cmdline", "status"])
            if {"http.server", address} <= set(process.info["cmdline"] or ())
            and process.info["status"] != psutil.STATUS_ZOMBIE
        ]


def status(machine: Machine) -> dict[str, Any]:
    """Return what `slapos standalone status` says, whether all runs or not."""
    words = ("standalone", "status", "--directory", str(machine.directory), "--json")
    found: dict[str, Any] = json.loads(machine.try_slapos(*words).stdout)
    return found


def pid_of(machine: Machine, program: str) -> int:
    """Return the id of `supervisord`, `proxy`, `node`, or of the node's `inst/supervisord`."""
    above, _, name = program.rpartition("/")
    return int((machine.directory / above / f"var/run/{name}.pid").read_text())


def look_at_everything(machine: Machine) -> None:
    """Make a pass beside the agent: what the node would do by itself is done after that."""
    machine.slapos("node", "instance")
