"""The HTTP client against real servers on loopback that behave badly."""

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import trustme

from slapos.protocol.errors import (
    Forbidden,
    InvalidRequest,
    MasterFailed,
    MasterUnreachable,
    NotFound,
    NotReady,
    SlapOSError,
)
from slapos.protocol.http_client import HttpClient, HttpSettings
from slapos.protocol.slap_client import SlapClient


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    answers: ClassVar[list[tuple[int, str, bytes]]] = []
    asked: ClassVar[list[str]] = []
    tags: ClassVar[list[str | None]] = []
    connections: ClassVar[set[tuple[str, int]]] = set()

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.asked.append(f"{self.command} {self.path}")
        self.tags.append(self.headers.get("If-None-Match"))
        self.connections.add(self.client_address)
        status, kind, body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{len(self.asked)}"')
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer  # noqa: N815 - http.server names them so

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Handler.answers, Handler.asked, Handler.tags, Handler.connections = [], [], [], set()
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_address[1]}"
    httpd.shutdown()
    httpd.server_close()
    thread.join()


@pytest.fixture
def client_of() -> Iterator[Callable[[str], HttpClient]]:
    made: list[HttpClient] = []

    def make(url: str) -> HttpClient:
        made.append(HttpClient(HttpSettings(base_url=url, timeout=0.5, retries=2, back_off=0.0)))
        return made[-1]

    yield make
    for client in made:
        client.close()


ClientOf = Callable[[str], HttpClient]


@pytest.mark.parametrize(
    ("status", "kind", "body", "error", "reason"),
    [
        (400, "text/plain", b"no title", InvalidRequest, "no title"),
        (403, "application/json", b'{"title": "not yours"}', Forbidden, "not yours"),
        (404, "text/html", b"<html>long page</html>", NotFound, "404"),
        (404, "application/json", b"{", NotFound, "404"),
        (408, "text/plain", b"no free partition", NotReady, "no free partition"),
        (500, "application/json", b'{"message": "broken"}', MasterFailed, "broken"),
    ],
)
def test_a_bad_status_is_an_error_with_the_masters_reason(
    server: str,
    client_of: ClientOf,
    status: int,
    kind: str,
    body: bytes,
    error: type[SlapOSError],
    reason: str,
) -> None:
    Handler.answers = [(status, kind, body)]
    with pytest.raises(error, match=reason):
        client_of(server).request("POST", "x")


def test_a_question_is_asked_again_an_order_is_not(server: str, client_of: ClientOf) -> None:
    Handler.answers = [(503, "text/plain", b"busy"), (200, "text/plain", b"done")]
    assert client_of(server).request("GET", "a").text == "done"
    assert Handler.asked == ["GET /a", "GET /a"]

    Handler.answers, Handler.asked = [(503, "text/plain", b"busy")], []
    with pytest.raises(MasterFailed, match="busy"):
        client_of(server).request("POST", "b")
    assert len(Handler.asked) == 1


def test_connections_are_used_again(server: str, client_of: ClientOf) -> None:
    Handler.answers = [(200, "text/plain", b"done")]
    client = client_of(server)
    for _ in range(5):
        client.request("GET", "x")
    assert len(Handler.connections) == 1


def test_a_master_that_is_not_there_is_named(client_of: ClientOf) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(MasterUnreachable, match=r"refused.*is the master running"):
            client_of(url).request("GET", "x")


def test_a_master_that_never_answers_is_given_up(client_of: ClientOf) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(MasterUnreachable, match="timed out"):
            client_of(url).request("POST", "x")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>a proxy's welcome page</html>",
        b"<marshal><string>no computer</string></marshal>",
        json.dumps({"not": "xml"}).encode(),
        b"\x00\xff" * 100,
    ],
)
def test_garbage_from_the_master_is_the_masters_failure(
    server: str, client_of: ClientOf, body: bytes
) -> None:
    Handler.answers = [(200, "text/xml", body)]
    with pytest.raises(MasterFailed, match="makes no sense"):
        SlapClient(client_of(server)).node_information("local")


@contextmanager
def saying(beginning: bytes, more: bytes = b"", pause: float = 0) -> Iterator[str]:
    """A master that says one thing, and then something more again and again."""
    done = threading.Event()

    def serve() -> None:
        with suppress(OSError), listener.accept()[0] as connection:
            connection.recv(65536)
            connection.sendall(beginning)
            while more and not done.wait(pause):
                connection.sendall(more)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        done.set()
        thread.join()


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("beginning", "reason"),
    [
        (b"220 mail.example.com ESMTP\r\n", "does not speak HTTP, but says .*ESMTP"),
        (b"", "closed connection without response"),
        (OK + b"Content-Length: 500\r\n\r\nhello", "495 more expected"),
    ],
)
def test_what_is_no_answer_is_told(client_of: ClientOf, beginning: bytes, reason: str) -> None:
    with saying(beginning) as url, pytest.raises(MasterUnreachable, match=reason):
        client_of(url).request("POST", "x")


def test_an_answer_that_trickles_is_given_up(client_of: ClientOf) -> None:
    with (
        saying(OK + b"\r\n", b"x", pause=0.05) as url,
        pytest.raises(MasterUnreachable, match=r"too slowly: \d+ bytes in 2\.5 s"),
    ):
        client_of(url).request("GET", "x")


def test_an_answer_without_end_is_given_up(client_of: ClientOf) -> None:
    with (
        saying(OK + b"\r\n", b"x" * 1_000_000) as url,
        pytest.raises(MasterFailed, match="more than 64 MiB"),
    ):
        client_of(url).request("GET", "x")


def test_a_web_page_is_no_answer(server: str, client_of: ClientOf) -> None:
    """Such as the portal of a hotel gives to everything, orders included."""
    Handler.answers = [(200, "text/html", b"<!DOCTYPE html><title>Sign in to our network</title>")]
    with pytest.raises(MasterFailed, match="it is a web page; is master_url right"):
        SlapClient(client_of(server)).supply("https://example.com/software.cfg", "local")


NODE = (
    b'<marshal><object id="i2" module="slapos.slap.slap" class="Computer"><tuple/>'
    b'<dictionary id="i3"><string>_computer_id</string><string>local</string></dictionary>'
    b"</object></marshal>"
)


def test_an_older_master_is_asked_the_older_call(server: str, client_of: ClientOf) -> None:
    Handler.answers = [(404, "text/plain", b"unknown"), (200, "text/xml", NODE)]
    assert SlapClient(client_of(server)).node_information("local").reference == "local"
    assert Handler.asked[-1].startswith("GET /getComputerInformation")


def test_what_has_not_changed_is_not_sent_again(server: str, client_of: ClientOf) -> None:
    Handler.answers = [(200, "text/xml", NODE), (304, "text/xml", b"")]
    client = SlapClient(client_of(server))
    first, second = client.node_information("local"), client.node_information("local")
    assert second is first
    assert Handler.tags == [None, '"1"']


def test_a_master_must_prove_who_it_is(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
    thread.start()
    Handler.answers = [(200, "text/plain", b"done")]
    url = f"https://127.0.0.1:{httpd.server_address[1]}"
    stranger = HttpClient(HttpSettings(base_url=url, retries=0))
    friend = HttpClient(HttpSettings(base_url=url, authority_file=tmp_path / "authority.pem"))
    try:
        with pytest.raises(MasterUnreachable, match="master_ca_file"):
            stranger.request("GET", "x")
        assert friend.request("GET", "x").text == "done"
    finally:
        stranger.close()
        friend.close()
        httpd.shutdown()
        httpd.server_close()
        thread.join()
