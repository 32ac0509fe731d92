"""The plugins that releases use, against real sockets, servers, commands and files."""

import base64
import importlib
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme

from slapos.node.promise.generic import GenericPromise
from slapos.node.promise.history import History
from slapos.node.promise.state_file import PromiseState
from tests.integration.node.promise.conftest import Partition


def promise(plugin: str, directory: Path, **options: Any) -> GenericPromise:
    module = importlib.import_module(f"slapos.node.promise.plugin.{plugin}")
    config = {
        "name": "it.py",
        "path": str(directory / "it.py"),
        "partition-folder": str(directory),
        **{key.replace("_", "-"): value for key, value in options.items()},
    }
    found = module.RunPromise(config)
    assert isinstance(found, GenericPromise)
    return found


def sensed(plugin: str, directory: Path, **options: Any) -> tuple[bool, str]:
    """Return whether the promise fails, and what it says."""
    found = promise(plugin, directory, **options)
    found.sense()
    result = found._test()
    return result.hasFailed(), result.message or ""


# Sockets.


@contextmanager
def listening(family: int, address: Any) -> Iterator[socket.socket]:
    with socket.socket(family) as server:
        server.bind(address)
        server.listen()
        yield server


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_a_tcp_port(tmp_path: Path, family: int, host: str) -> None:
    with listening(family, (host, 0)) as server:
        port = server.getsockname()[1]
        failed, message = sensed("check_socket_listening", tmp_path, host=host, port=str(port))
        assert (failed, message) == (False, f"somebody listens at {host} port {port}")
    failed, message = sensed("check_socket_listening", tmp_path, host=host, port=str(port))
    assert failed
    assert f"nobody answers at {host} port {port}" in message
    assert "refused" in message


def test_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with listening(socket.AF_UNIX, path):
        assert not sensed("check_socket_listening", tmp_path, pathname=path)[0]
    assert sensed("check_socket_listening", tmp_path, pathname=path)[0]


def test_an_abstract_socket(tmp_path: Path) -> None:
    name = str(tmp_path)[-90:]
    with listening(socket.AF_UNIX, f"\0{name}"):
        assert not sensed("check_socket_listening", tmp_path, abstract=name)[0]
    failed, message = sensed("check_socket_listening", tmp_path, abstract=name)
    assert failed
    assert f"@{name}" in message


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"host": "localhost"},
        {"pathname": "/a", "abstract": "a"},
        {"host": "localhost", "port": 1, "pathname": "/a"},
    ],
)
def test_an_address_is_one_address(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="give one address"):
        promise("check_socket_listening", tmp_path, **options)


# URLs.


class Handler(BaseHTTPRequestHandler):
    """Answers with the status in the path; /private wants a password, /moved goes to /204."""

    def do_GET(self) -> None:
        credentials = base64.b64encode(b"user:secret").decode()
        if self.path == "/private" and self.headers["Authorization"] == f"Basic {credentials}":
            self.send_response(200)
        elif self.path == "/private":
            self.send_response(401)
        elif self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/204")
        elif self.path == "/endless":
            self.send_response(200)
            self.end_headers()
            return  # no Content-Length: the body ends when we hang up
        else:
            self.send_response(int(self.path.strip("/")))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


@contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            scheme = "http" if context is None else "https"
            yield f"{scheme}://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with serving() as url:
        yield url


@pytest.mark.parametrize(
    ("path", "options", "failed"),
    [
        ("200", {}, False),
        ("204", {}, True),
        ("204", {"http_code": "204"}, False),
        ("500", {}, True),
        ("500", {"ignore_code": "1"}, False),
        ("moved", {"http_code": 204}, False),
        ("moved", {"http_code": 302, "allow_redirects": "0"}, False),
        ("private", {}, True),
        ("private", {"username": "user"}, True),
        ("private", {"username": "user", "password": "secret"}, False),
        ("endless", {}, False),
    ],
)
def test_a_url(tmp_path: Path, site: str, path: str, options: dict[str, Any], failed: bool) -> None:
    found, message = sensed("check_url_available", tmp_path, url=f"{site}/{path}", **options)
    assert found == failed
    assert f"{site}/{path} answers" in message


def test_a_url_that_nobody_serves(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
        failed, message = sensed("check_url_available", tmp_path, url=url)
    assert failed
    assert message.startswith(f"{url} cannot be reached")


def test_a_url_that_is_slow(tmp_path: Path) -> None:
    with listening(socket.AF_INET, ("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        failed, message = sensed("check_url_available", tmp_path, url=url, timeout="0.1")
    assert failed
    assert "gave no answer within 0.1 s" in message


@pytest.mark.parametrize("url", ["nonsense", "ftp://a", "http://", "http://[::1"])
def test_a_url_that_makes_no_sense(tmp_path: Path, url: str) -> None:
    failed, message = sensed("check_url_available", tmp_path, url=url)
    assert failed
    assert url in message


def test_a_certificate_is_checked_where_that_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/etc/ssl/certs/ca-certificates.crt")
    with serving(context) as site:
        url = f"{site}/200"
        assert not sensed("check_url_available", tmp_path, url=url)[0]
        assert not sensed(
            "check_url_available", tmp_path, url=url, ca_cert_file=str(tmp_path / "ca.pem")
        )[0]
        failed, message = sensed("check_url_available", tmp_path, url=url, verify="1")
    assert failed
    assert "could not prove who it is" in message


# Commands.


def test_a_command(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    assert sensed("check_command_execute", tmp_path, command="test -e there") == (
        False,
        "test -e there succeeded",
    )
    failed, message = sensed("check_command_execute", tmp_path, command="echo so; exit 4")
    assert failed
    assert message == "echo so; exit 4 ended with status 4; it printed: so"


def test_a_command_that_takes_too_long(tmp_path: Path) -> None:
    failed, message = sensed(
        "check_command_execute", tmp_path, command="echo on; sleep 600", promise_timeout=1
    )
    assert failed
    assert message == "echo on; sleep 600 did not end within 0.5 s; it printed: on"


# Files.


@pytest.mark.parametrize("found", ["absent", "empty", "not-empty"])
@pytest.mark.parametrize("wanted", ["absent", "empty", "not-empty"])
def test_a_file(tmp_path: Path, found: str, wanted: str) -> None:
    path = tmp_path / "errors.log"
    if found != "absent":
        path.write_text("" if found == "empty" else "an error")
    failed, message = sensed(
        "check_file_state", tmp_path, filename=str(path), state=wanted, url="http://a/errors"
    )
    assert failed == (found != wanted)
    assert f"{path} is {found}" in message
    assert ("http://a/errors" in message) == (failed and found == "not-empty")


def test_a_file_that_cannot_be_looked_at(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    failed, message = sensed("check_file_state", tmp_path, filename="file/below", state="absent")
    assert failed
    assert "Not a directory" in message


def test_where_a_file_promise_takes_part(tmp_path: Path) -> None:
    options = {"filename": "f", "state": "absent"}
    assert promise("check_file_state", tmp_path, **options).isTested()
    assert promise("check_file_state", tmp_path, **options).isAnomalyDetected()
    assert not promise("check_file_state", tmp_path, perdiodic_only="true", **options).isTested()
    assert not promise("check_file_state", tmp_path, periodic_only="true", **options).isTested()
    less = promise("check_file_state", tmp_path, report_anomaly="False", **options)
    assert not less.isAnomalyDetected()


# What they have in common.

COMPLETE: dict[str, dict[str, Any]] = {
    "check_socket_listening": {"host": "127.0.0.1", "port": 1},
    "check_url_available": {"url": "http://127.0.0.1:1/"},
    "check_command_execute": {"command": "false"},
    "check_file_state": {"filename": "f", "state": "empty"},
}
COUNTS = {
    "check_socket_listening": 3,
    "check_url_available": 3,
    "check_command_execute": 1,
    "check_file_state": 1,
}


@pytest.mark.parametrize("plugin", COMPLETE)
def test_how_many_failures_are_an_anomaly(tmp_path: Path, plugin: str) -> None:
    state = PromiseState(tmp_path)
    state.load([])
    failed = []
    for _ in range(3):
        found = promise(plugin, tmp_path, **COMPLETE[plugin])
        found.sense()
        failed.append(found.anomaly().hasFailed())
        History(state.history_path("it")).append(found.current_run())
    assert failed == [run + 1 >= COUNTS[plugin] for run in range(3)]


@pytest.mark.parametrize("plugin", COMPLETE)
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"frequency": "often"}, "frequency is a number, not 'often'"),
        ({"frequency": "0"}, "more than 0"),
        ({"result_count": "2", "failure_amount": "3"}, "failure-amount is 3"),
        ({"failure_amount": "0"}, "failure-amount is 0"),
    ],
)
def test_an_option_that_makes_no_sense_is_named(
    tmp_path: Path, plugin: str, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        promise(plugin, tmp_path, **COMPLETE[plugin], **options)


@pytest.mark.parametrize(
    ("plugin", "told"),
    [
        ("check_url_available", "the option url is missing"),
        ("check_command_execute", "the option command is missing"),
        ("check_file_state", "the option filename is missing"),
    ],
)
def test_an_option_that_is_missing_is_named(tmp_path: Path, plugin: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        promise(plugin, tmp_path)


def test_options_and_counts(tmp_path: Path) -> None:
    found = promise("check_file_state", tmp_path, frequency="5", filename="f", state="empty")
    assert found.getPeriodicity() == 5
    with pytest.raises(ValueError, match="state is one of absent, empty, not-empty"):
        promise("check_file_state", tmp_path, filename="f", state="full")


def test_a_release_uses_them_by_import(partition: Partition) -> None:
    for plugin, options in COMPLETE.items():
        partition.file(
            f"etc/plugin/{plugin}.py",
            "import sys\nsys.path[0:0] = []\n"
            f"extra_config_dict = {options!r}\n"
            f"from slapos.node.promise.plugin.{plugin} import RunPromise\n",
        )
    found = partition.check()
    assert {title: result.failed for title, result in found.items()} == dict.fromkeys(
        COMPLETE, True
    )
    assert "refused" in found["check_url_available"].message
