"""The HTTP proxy: what instances have published is reached, and nothing else."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from slapos.protocol.marshal import dumps
from tests.integration.master.test_hateoas import format_node, order


class Backend(BaseHTTPRequestHandler):
    """Tells what it was asked; `/away` leads elsewhere, `/broken` fails."""

    def do_GET(self) -> None:
        status = {"/away": 302, "/broken": 500}.get(self.path, 200)
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "http://example.org/next?a=b")
        self.send_header("Set-Cookie", "taste=sweet")
        self.send_header("Content-Type", "text/html")
        self.send_header("ETag", '"1"')
        self.end_headers()
        self.wfile.write(f"{self.path} {sorted(name.lower() for name in self.headers)}".encode())

    def log_message(self, *_arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def backend() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Backend) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def publish(client: FlaskClient, **connection: str) -> None:
    format_node(client, 1)
    order(client, "web")
    form = {
        "computer_id": "computer",
        "computer_partition_id": "slappart0",
        "connection_xml": dumps(connection).decode(),
    }
    assert client.post("/setComputerPartitionConnectionXml", data=form).status_code == 200


def fetch(client: FlaskClient, address: str, **options: Any) -> TestResponse:
    return client.get(f"/http_proxy/http/{address}", **options)


def test_a_published_address_is_reached(client: FlaskClient, backend: str) -> None:
    publish(client, access=f"see http://{backend}/, please")
    headers = {"User-Agent": "me", "Cookie": "secret=1", "Authorization": "Basic eA=="}
    response = fetch(client, f"{backend}/a//b%20c?x=1&y=2", headers=headers)
    assert response.status_code == 200
    path, _, names = response.text.partition(" ")
    assert path == "/a//b%20c?x=1&y=2"
    assert "'authorization'" in names
    assert "cookie" not in names
    assert response.headers["Content-Disposition"] == "attachment"
    assert response.headers["ETag"] == '"1"'
    assert "Set-Cookie" not in response.headers


def test_an_address_published_by_way_of_this_proxy_is_reached(
    client: FlaskClient, backend: str
) -> None:
    publish(client, access=f"https://master.example/http_proxy/http/{backend}/")
    assert fetch(client, backend).status_code == 200


@pytest.mark.parametrize("address", ["127.0.0.1:1", "example.org", "127.0.0.1", "7.0.0.1:80"])
def test_another_address_is_refused_with_the_reason(
    client: FlaskClient, backend: str, address: str
) -> None:
    publish(client, url=f"http://{backend}/")
    response = fetch(client, f"{address}/")
    assert response.status_code == 403
    assert "no instance of this master has published" in response.get_json()["message"]


def test_the_same_address_by_another_scheme_is_refused(client: FlaskClient, backend: str) -> None:
    publish(client, url=f"http://{backend}/")
    assert client.get(f"/http_proxy/https/{backend}/").status_code == 403


@pytest.mark.parametrize("path", ["ftp/example.org/", "http/a@b/", "http/host:port/"])
def test_what_is_no_address_is_said(client: FlaskClient, path: str) -> None:
    assert client.get(f"/http_proxy/{path}").status_code == 400


def test_a_redirect_is_not_followed_but_led_through_the_proxy(
    client: FlaskClient, backend: str
) -> None:
    publish(client, url=f"http://{backend}/")
    response = fetch(client, f"{backend}/away")
    assert response.status_code == 302
    expected = "http://localhost/http_proxy/http/example.org/next?a=b"
    assert response.headers["Location"] == expected
    assert client.get(expected).status_code == 403


def test_failures_of_the_backend_are_told_from_our_own(client: FlaskClient, backend: str) -> None:
    publish(client, url=f"http://{backend}/", gone="http://127.0.0.1:9/")
    assert fetch(client, f"{backend}/broken").status_code == 520
    response = fetch(client, "127.0.0.1:9/")
    assert response.status_code == 523
    assert "127.0.0.1:9" in response.text
