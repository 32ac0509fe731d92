"""A pytest plugin for the peer's environment: its slapproxy tests, asked of a process over HTTP.

The tests that slapos.core ships speak with slapproxy's Flask application inside their own process.
Here they get a session that speaks with a process instead, a new one with a new database for each
test. That they really do is made sure of three times: the application inside the process refuses to
answer, the module that pytest collects must be the one that is changed here, and a test that passes
without a single answer from the process fails.

Settings come by environment variables, see `tests/conformance/inner_run.py`, which sets them.
"""

import configparser
import contextlib
import functools
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
import requests

COMMAND: list[str] = json.loads(os.environ["SLAPOS_CONFORMANCE_COMMAND"])
#: Whether the command starts masters as it is told on its standard input (`warm_master.py`).
WARM = bool(os.environ.get("SLAPOS_CONFORMANCE_WARM"))
SERVER_HEADER = os.environ["SLAPOS_CONFORMANCE_SERVER"]
SHARD, SHARDS = (int(part) for part in os.environ["SLAPOS_CONFORMANCE_SHARD"].split("/"))
#: Tests that are not even tried: names of classes.
NOT_TRIED = frozenset(filter(None, os.environ["SLAPOS_CONFORMANCE_NOT_TRIED"].split(",")))
#: SQL that shows another master's tables under slapproxy's names, for tests that look into them.
TABLES = os.environ.get("SLAPOS_CONFORMANCE_TABLES", "")
PATIENCE = 60.0  # seconds for a master to answer the first time

os.environ["SLAPOS_TEST_IPV4"] = "127.0.0.1"
peer_tests: Any = importlib.import_module("slapos.tests.test_slapproxy")
peer_application: Any = importlib.import_module("slapos.proxy.views").app
slap_errors: Any = importlib.import_module("slapos.slap")

#: Inside the process an error that nothing catches comes out as an exception; over HTTP it is a
#: status from 400 up. These tests expect the exception.
RAISED_IN_PROCESS: dict[str, type[Exception]] = {
    "test_getComputerInformation_wrong_computer": slap_errors.NotFoundError,
    "test_multi_node_support_getComputerInformation": slap_errors.NotFoundError,
    "test_getSoftwareReleaseListFromSoftwareProduct_bothParameter": AssertionError,
    "test_getSoftwareReleaseListFromSoftwareProduct_noParameter": AssertionError,
}

original_connect = peer_tests.sqlite_connect
original_move_proxy = peer_tests.TestLocalSoftwareReleaseRootPathMigration.moveProxy
answers_seen = 0


def start_cold(arguments: list[str], directory: Path, log: Path) -> "subprocess.Popen[bytes]":
    """Start a master as whoever installs it does."""
    with log.open("wb") as stream:
        return subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            cwd=directory,
        )


def start_warm(arguments: list[str], directory: Path, log: Path) -> "Forked":
    """Start a master as a fork of a process that has its modules in memory."""
    process = warm_process()
    assert process.stdin is not None
    assert process.stdout is not None
    asked = {"arguments": arguments, "directory": str(directory), "log": str(log)}
    process.stdin.write(f"{json.dumps(asked)}\n")
    process.stdin.flush()
    return Forked(int(process.stdout.readline()))


@functools.cache
def warm_process() -> "subprocess.Popen[str]":
    """Return the process that starts masters; it ends with this one."""
    return subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


class Forked:
    """A process that is another's child, with what this plugin needs of `subprocess.Popen`."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def poll(self) -> int | None:
        """Return None while it is there."""
        try:
            os.kill(self._pid, 0)
        except ProcessLookupError:
            return 0
        return None

    def terminate(self) -> None:
        """Ask it to end."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)

    def wait(self, timeout: float = PATIENCE) -> None:
        """Wait until it has ended; raise TimeoutExpired."""
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(COMMAND, timeout)
            time.sleep(0.01)


class MasterProcess:
    """A master started for one test. It starts at the first question.

    `settings` stands in for slapproxy's `app.config`: a test may change it, then the master starts
    anew with a configuration file that says the same.
    """

    def __init__(self, configuration: Path, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}"
        self.port = port
        self.file = configuration
        parser = configparser.RawConfigParser()
        parser.read(configuration)
        self.settings: dict[str, Any] = {
            "computer_id": parser["slapos"]["computer_id"],
            "DATABASE_URI": parser["slapproxy"]["database_uri"],
            "multimaster": {
                name.partition("/")[2]: dict(parser[name])
                for name in parser.sections()
                if name.startswith("multimaster/")
            },
        }
        self._process: subprocess.Popen[bytes] | Forked | None = None
        self._started_with = ""
        self._log = Path(tempfile.mkstemp(prefix="slapos-conformance-", suffix=".log")[1])

    def ensure_started(self) -> None:
        """Have it run with the settings as they are now."""
        wanted = self._configuration()
        if self._process is not None and wanted == self._started_with:
            return
        self.stop()
        served = self.file.with_name(f"{self.file.name}.served")
        served.write_text(wanted)
        start = start_warm if WARM else start_cold
        self._process = start(["proxy", "start", "--cfg", str(served)], self.file.parent, self._log)
        self._started_with = wanted
        self._wait()

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
                raise AssertionError("the master did not end when asked to") from None
            finally:
                self._process = None

    def forget(self) -> None:
        """End it, and remove what it printed."""
        try:
            self.stop()
        finally:
            self._log.unlink(missing_ok=True)

    def _wait(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            time.sleep(0.01)
        raise AssertionError(f"the master did not start:\n{self.printed()}")

    def printed(self) -> str:
        """Return the end of what it printed."""
        return self._log.read_text(errors="replace")[-4000:]

    def _configuration(self) -> str:
        parser = configparser.RawConfigParser()
        parser.read(self.file)
        parser["slapproxy"]["host"] = "127.0.0.1"
        parser["slapproxy"]["port"] = str(self.port)
        products = self.settings.get("software_product_list") or {}
        if products:
            lines = "\n".join(f"{name} {url}" for name, url in products.items())
            parser["slapproxy"]["software_product_list"] = lines
        if "PUBLIC_DIRECTORY_PATH" in self.settings:
            parser["slapproxy"]["public_directory_path"] = self.settings["PUBLIC_DIRECTORY_PATH"]
        for url, options in self.settings["multimaster"].items():
            parser[f"multimaster/{url}"] = {
                name: "\n".join(value) if isinstance(value, list) else value
                for name, value in options.items()
                if value is not None
            }
        file = self.file.with_name(f"{self.file.name}.rendered")
        with file.open("w") as stream:
            parser.write(stream)
        return file.read_text()


class Session(requests.Session):
    """Has the methods of Flask's test client that the tests use, and asks a process."""

    def __init__(self, master: MasterProcess, raised: type[Exception] | None) -> None:
        super().__init__()
        self.trust_env = False
        self._master = master
        self._raised = raised
        # As Flask's test client does: the answers of some calls name the host.
        self.headers["Host"] = "localhost"

    def request(  # type: ignore[override]
        self, method: str, url: str, query_string: Any = None, **options: Any
    ) -> requests.Response:
        """Ask the master; redirects are not followed, as with Flask's test client."""
        global answers_seen  # noqa: PLW0603 (a plugin has no better place)
        self._master.ensure_started()
        options["allow_redirects"] = False
        options["timeout"] = PATIENCE
        if query_string is not None:
            options["params"] = query_string
        answer = super().request(method, urljoin(self._master.address, url), **options)
        server = answer.headers.get("Server", "")
        if not (server.startswith(SERVER_HEADER) if SERVER_HEADER else server == ""):
            raise AssertionError(f"{server!r} answered in place of {SERVER_HEADER!r}")
        answers_seen += 1
        if answer.status_code >= 500:
            sys.stderr.write(self._master.printed())
        if self._raised is not None and answer.status_code >= 400:
            raise self._raised(answer.text)
        same: Any = answer
        same._status_code = answer.status_code
        same.data = answer.content
        same.content_type = answer.headers.get("Content-Type")
        return answer


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def start_proxy(test: Any) -> None:
    """Stand in for BasicMixin.startProxy."""
    if getattr(test, "master_process", None) is not None:
        test.master_process.forget()
    port = free_port()
    configuration = Path(test.slapos_cfg)
    address = urlsplit(test.proxyaddr)
    if address.port == 8080:  # the command line is to find it: TestCliInformation
        configuration.write_text(configuration.read_text().replace(":8080", f":{port}"))
    test.master_process = MasterProcess(configuration, port)
    test.proxyaddr = test.master_process.address
    test.addCleanup(test.master_process.forget)
    test.app_config = test.master_process.settings
    test.app = Session(test.master_process, RAISED_IN_PROCESS.get(test._testMethodName))


def move_proxy(test: Any, *arguments: Any, **options: Any) -> None:
    """Stand in for moveProxy: the master is at rest while its files are moved."""
    test.master_process.stop()
    original_move_proxy(test, *arguments, **options)


def connect(path: str) -> Any:
    """Stand in for sqlite_connect: the master's database, with slapproxy's names for its tables."""
    database = original_connect(path)
    database.executescript(TABLES.replace("VERSION", str(peer_tests.DB_VERSION)))
    return database


def refuse(*_arguments: Any, **_options: Any) -> None:
    """Stand in for slapproxy inside this process."""
    raise AssertionError("a test asked slapproxy inside its own process, not over HTTP")


def own_port(attribute: str) -> property:
    """Return an attribute that is a free port, whatever the test sets it to."""

    def read(test: Any) -> int:
        if not hasattr(test, attribute):
            setattr(test, attribute, free_port())
        return int(getattr(test, attribute))

    return property(read, lambda _test, _value: None)


def pytest_configure() -> None:
    """Put the process in slapproxy's place."""
    peer_application.test_client = refuse
    peer_application.wsgi_app = refuse
    peer_tests.BasicMixin.startProxy = start_proxy
    peer_tests.CliMasterMixin.startProxy = start_proxy
    del peer_tests.CliMasterMixin.tearDown
    peer_tests.sqlite_connect = connect
    peer_tests.TestLocalSoftwareReleaseRootPathMigration.moveProxy = move_proxy
    peer_tests.TestMultiMasterSupport.external_proxy_port = own_port("_external_proxy_port")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep this shard's tests, after looking whether they are the changed ones."""
    kept: list[pytest.Item] = []
    left: list[pytest.Item] = []
    for item in items:
        if not issubclass(item.cls, peer_tests.BasicMixin):  # type: ignore[attr-defined]
            raise pytest.UsageError(f"{item.nodeid} is not of the module that was changed")
    tried = [item for item in items if item.cls.__name__ not in NOT_TRIED]  # type: ignore[attr-defined]
    for number, item in enumerate(tried):
        (kept if number % SHARDS == SHARD else left).append(item)
    left.extend(item for item in items if item not in tried)
    config.hook.pytest_deselected(items=left)
    items[:] = kept


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, Any, Any]:
    """Fail a test that passed without an answer from the process."""
    before = answers_seen
    result = yield
    if answers_seen == before:
        raise AssertionError("the test passed, but it never asked the master over HTTP")
    return result
