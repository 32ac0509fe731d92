"""What the web server does with clients that are slow, rude, many, or gone."""

import json
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from flask import Flask, Response

from slapos.master.http import MAXIMUM_BODY
from slapos.master.web.server import LARGEST_HEAD
from slapos.protocol.errors import InvalidRequest
from slapos.protocol.http_client import HttpClient, HttpSettings
from slapos.protocol.slap_client import SlapClient
from tests.integration.master.factories import NODE, format_form
from tests.integration.master.programs import configuration, running
from tests.integration.master.web_server import answer_of, connected, is_closed, served

pytestmark = pytest.mark.parametrize("database_uri", ["sqlite"], indirect=True)

INFORMATION = f"/getFullComputerInformation?computer_id={NODE}"
HALF = b"POST /supplySupply HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nurl="


def get(path: str, **headers: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: x", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


@pytest.fixture
def port(app: Flask) -> Iterator[int]:
    app.test_client().post("/loadComputerConfigurationFromXML", data=format_form(50))
    with served(app) as port:
        yield port


@pytest.fixture
def connection(port: int) -> Iterator[socket.socket]:
    with connected(port) as connection:
        yield connection


def test_slow_clients_hold_no_threads(port: int) -> None:
    """There are eight, and ninety clients that have sent half a body."""
    with ExitStack() as stack:
        for _ in range(90):
            stack.enter_context(connected(port)).sendall(HALF)
        connection = stack.enter_context(connected(port))
        connection.sendall(get("/v1/nodes"))
        assert answer_of(connection).startswith(b"HTTP/1.1 200 OK")


def test_clients_that_do_not_read_hold_no_threads(port: int) -> None:
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(connected(port)).sendall(get(INFORMATION) * 50)
        connection = stack.enter_context(connected(port))
        connection.sendall(get("/v1/nodes"))
        assert answer_of(connection).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("path", [INFORMATION, "/v1/nodes", "/nothing"])
def test_a_connection_is_kept(connection: socket.socket, path: str) -> None:
    for _ in range(3):
        connection.sendall(get(path))
        assert b"connection: close" not in answer_of(connection)


def test_a_connection_is_kept_after_nothing_new(connection: socket.socket) -> None:
    connection.sendall(get(INFORMATION))
    head = answer_of(connection).partition(b"\r\n\r\n")[0].decode()
    (tag,) = [line.split(": ")[1] for line in head.splitlines() if line.startswith("etag")]
    for _ in range(3):
        connection.sendall(get(INFORMATION, **{"If-None-Match": tag}))
        assert answer_of(connection).startswith(b"HTTP/1.1 304 NOT MODIFIED")


def test_requests_that_come_at_once_are_answered_in_order(connection: socket.socket) -> None:
    connection.sendall(get("/v1/products") + get(INFORMATION) + get("/v1/health"))
    assert b"hello" in answer_of_many(connection, 3)[0]


def answer_of_many(connection: socket.socket, count: int) -> list[bytes]:
    """Return answers that may have come in one packet."""
    received = b""
    while received.count(b"HTTP/1.1 200 OK") < count or b'"status":"ok"' not in received:
        received += connection.recv(65536)
    return received.split(b"HTTP/1.1 ")[1:]


@pytest.mark.parametrize("size", [5_000, 2_000_000])
def test_a_body_in_chunks_is_taken(connection: socket.socket, size: int) -> None:
    """One that is longer than what is kept in memory, too."""
    begin = b"url=http%3A%2F%2Fx%2F&computer_id=computer&message="
    body = begin + b"x" * (size - len(begin))
    connection.sendall(
        b"POST /supplySupply HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        b"Content-Type: application/x-www-form-urlencoded\r\n\r\n"
    )
    for start in range(0, size, 1000):
        piece = body[start : start + 1000]
        connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
    connection.sendall(b"0\r\n\r\n")
    assert b"Supplied 'http://x/' to be available" in answer_of(connection)


def test_a_body_that_is_too_large_is_refused_in_words(port: int) -> None:
    http = HttpClient(HttpSettings(base_url=f"http://127.0.0.1:{port}"))
    with pytest.raises(InvalidRequest, match="16 MB"):
        http.request("POST", "/supplySupply", form={"url": "x" * MAXIMUM_BODY})
    http.close()


def test_a_head_without_an_end_is_refused(connection: socket.socket) -> None:
    connection.sendall(b"GET / HTTP/1.1\r\nX: ")
    sent = 0
    with suppress(OSError):  # the server has had enough
        while sent < 100 * LARGEST_HEAD:
            sent += connection.send(b"x" * LARGEST_HEAD)
    assert sent < 100 * LARGEST_HEAD
    assert is_closed(connection)


@pytest.mark.parametrize("said", [b"hello\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n", b"\x16\x03\x01"])
def test_what_is_no_request_is_refused(connection: socket.socket, said: bytes) -> None:
    connection.sendall(said)
    assert answer_of(connection).startswith(b"HTTP/1.1 400 ")
    assert is_closed(connection)


@pytest.mark.parametrize("said", [b"", b"GET / HT", HALF, get("/v1/nodes")])
def test_a_silent_client_is_let_go(app: Flask, said: bytes) -> None:
    with served(app, idle=1) as port, connected(port) as connection:
        connection.sendall(said)
        assert is_closed(connection)


def test_an_answer_to_head_has_no_content(connection: socket.socket) -> None:
    connection.sendall(get("/v1/nodes").replace(b"GET", b"HEAD") + get("/v1/health"))
    received = b""
    while b'"status":"ok"' not in received:
        received += connection.recv(65536)
    assert received.count(b"HTTP/1.1 200 OK") == 2
    assert b"compute" not in received


def test_a_path_arrives_as_it_was_sent(connection: socket.socket) -> None:
    connection.sendall(get("/v1/nodes/a%2Fb%C3%A9%20d"))
    said = json.loads(answer_of(connection).partition(b"\r\n\r\n")[2])["message"]
    assert said.startswith("there is no node 'a/bé d'")


def test_a_long_answer_is_sent_piece_by_piece(app: Flask) -> None:
    made = []

    def pieces() -> Iterator[bytes]:
        for number in range(100):
            made.append(number)
            yield b"x" * 100_000

    app.add_url_rule("/long", view_func=lambda: Response(pieces()))
    with served(app) as port, connected(port) as connection:
        connection.sendall(get("/long"))
        received = 0
        while received < 100 * 100_000:
            received += len(connection.recv(1 << 20))
    assert len(made) == 100


def test_nobody_makes_an_answer_for_a_client_that_is_gone(app: Flask) -> None:
    made = []

    def pieces() -> Iterator[bytes]:
        while True:  # until it is closed
            made.append(1)
            yield b"x" * 100_000

    ended = []

    class Noted(Response):
        def close(self) -> None:
            ended.append(1)
            super().close()

    app.add_url_rule("/endless", view_func=lambda: Noted(pieces()))
    with served(app) as port:
        with connected(port) as connection:
            connection.sendall(get("/endless"))
            connection.recv(100)
        with connected(port) as other:
            while not ended:
                other.sendall(get("/v1/health"))
                answer_of(other)
    assert ended == [1]


def test_a_failure_of_the_application_is_answered(app: Flask) -> None:
    def fail() -> Response:
        raise RuntimeError("a defect")

    app.add_url_rule("/fails", view_func=fail)
    with served(app) as port, connected(port) as connection:
        connection.sendall(get("/fails"))
        assert b'"error":"internal_server_error"' in answer_of(connection)
        connection.sendall(get("/v1/health"))
        assert b'"status":"ok"' in answer_of(connection)


def test_it_ends_at_once_whoever_is_connected(tmp_path: Path, database_uri: str) -> None:
    """Also with nodes that wait: they are answered, and come back to the next one."""
    with ExitStack() as stack:
        url, process = stack.enter_context(running("--cfg", configuration(tmp_path, database_uri)))
        port = int(url.rstrip("/").rpartition(":")[2])
        http = HttpClient(HttpSettings(base_url=url))
        token = http.request("GET", f"/v1/nodes/{NODE}/changes").json()["token"]
        http.close()
        slow, waiting, idle = (
            [stack.enter_context(connected(port)) for _ in range(30)] for _ in range(3)
        )
        for connection in slow:
            connection.sendall(HALF)
        for connection in waiting:
            connection.sendall(get(f"/v1/nodes/{NODE}/changes?since={token}"))
        for connection in idle:
            connection.sendall(get("/v1/health"))
            answer_of(connection)
        process.send_signal(signal.SIGTERM)
        assert process.wait(4) == 0
        for connection in waiting:
            assert b'"changed": false' in answer_of(connection)


def test_an_answer_is_compressed_for_those_who_can_read_that(port: int) -> None:
    """As the client of slapos.core says that it can; nothing of it is seen there."""
    http = HttpClient(HttpSettings(base_url=f"http://127.0.0.1:{port}"))
    client = SlapClient(http)
    answers = [http.request("GET", INFORMATION) for _ in range(2)]
    plain = http.request("GET", INFORMATION, headers={"Accept-Encoding": "identity"})
    assert {answer.headers.get("Content-Encoding") for answer in answers} == {"gzip"}
    assert {answer.content for answer in answers} == {plain.content}
    assert len({answers[0].headers["ETag"], plain.headers["ETag"]}) == 2
    assert int(answers[0].headers["Content-Length"]) * 5 < len(plain.content)
    known = client.node_information(NODE)
    assert client.node_information(NODE) is known
    http.close()
