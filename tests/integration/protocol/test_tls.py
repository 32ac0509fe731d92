"""TLS with a master: real connections, real certificates."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import trustme

from slapos.protocol.errors import InvalidConfiguration
from slapos.protocol.http_client import HttpClient, HttpSettings
from slapos.protocol.tls import NotTrusted
from tests.tls_server import TlsServer


class Handler(BaseHTTPRequestHandler):
    """Answers with the serial number of the certificate that is shown, and what is asked by."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path.startswith("/elsewhere"):
            self.send_response(302)
            self.send_header("Location", self.path.partition("?to=")[2])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        shown = self.connection.getpeercert() if isinstance(self.connection, ssl.SSLSocket) else {}
        authorization = self.headers.get("Authorization", "")
        body = f"{(shown or {}).get('serialNumber', '')} {authorization}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        pass


@contextmanager
def serving(context: ssl.SSLContext | None) -> Iterator[str]:
    server = TlsServer(("127.0.0.1", 0), Handler)
    server.context = context
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    scheme = "https" if context else "http"
    try:
        yield f"{scheme}://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    made = trustme.CA()
    made.cert_pem.write_to_path(tmp_path / "authority.pem")
    return made


def context_of(authority: trustme.CA, clients: trustme.CA | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        clients.configure_trust(context)
    return context


def put(leaf: trustme.LeafCert, folder: Path) -> None:
    leaf.private_key_pem.write_to_path(folder / "key.pem")
    leaf.cert_chain_pems[0].write_to_path(folder / "certificate.pem")


def settings_of(url: str, folder: Path, *, token: str = "") -> HttpSettings:
    return HttpSettings(
        base_url=url,
        key_file=folder / "key.pem",
        certificate_file=folder / "certificate.pem",
        authority_file=folder / "authority.pem",
        retries=0,
        token=token,
    )


@contextmanager
def client_of(settings: HttpSettings) -> Iterator[HttpClient]:
    client = HttpClient(settings)
    try:
        yield client
    finally:
        client.close()


def test_a_renewed_certificate_is_shown_without_a_restart(
    authority: trustme.CA, tmp_path: Path
) -> None:
    put(authority.issue_cert("node"), tmp_path)
    context = context_of(authority, authority)
    with serving(context) as url, client_of(settings_of(url, tmp_path)) as client:
        first = client.request("GET", "x").text
        assert client.request("GET", "x").text == first
        put(authority.issue_cert("node"), tmp_path)
        second = client.request("GET", "x").text
    assert "" != first.strip() != second.strip() != ""


def test_an_authority_that_is_added_counts_without_a_restart(
    authority: trustme.CA, tmp_path: Path
) -> None:
    successor = trustme.CA()
    with serving(context_of(authority)) as old, serving(context_of(successor)) as new:
        settings = HttpSettings(base_url=old, authority_file=tmp_path / "authority.pem", retries=0)
        with client_of(settings) as client:
            client.request("GET", "x")
            with pytest.raises(NotTrusted):
                client.request("GET", f"{new}/x")
            with (tmp_path / "authority.pem").open("ab") as file:
                file.write(successor.cert_pem.bytes())
            client.request("GET", f"{new}/x")
            client.request("GET", "x")


def test_it_is_said_which_side_does_not_trust_the_other(
    authority: trustme.CA, tmp_path: Path
) -> None:
    stranger = trustme.CA()
    yesterday = datetime.now(UTC) - timedelta(days=1)
    put(stranger.issue_cert("node"), tmp_path)
    with serving(context_of(authority, authority)) as url:
        with client_of(settings_of(url, tmp_path)) as client:
            with pytest.raises(
                NotTrusted, match=r"does not take our certificate .*certificate.pem"
            ):
                client.request("GET", "x")
            put(authority.issue_cert("node", not_after=yesterday), tmp_path)
            with pytest.raises(NotTrusted, match=r"has it expired"):
                client.request("GET", "x")
        nobody = HttpSettings(base_url=url, authority_file=tmp_path / "authority.pem", retries=0)
        with client_of(nobody) as client, pytest.raises(NotTrusted, match="wants a certificate"):
            client.request("GET", "x")
    late = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", not_after=yesterday).configure_cert(late)
    with serving(late) as url:
        settings = settings_of(url, tmp_path)
        with client_of(settings) as client, pytest.raises(NotTrusted, match="clock"):
            client.request("GET", "x")


def test_files_that_cannot_be_used_are_named(authority: trustme.CA, tmp_path: Path) -> None:
    put(authority.issue_cert("node"), tmp_path)
    with serving(context_of(authority, authority)) as url:
        (tmp_path / "key.pem").write_bytes(trustme.CA().issue_cert("x").private_key_pem.bytes())
        settings = settings_of(url, tmp_path)
        with client_of(settings) as client, pytest.raises(InvalidConfiguration, match=r"key\.pem"):
            client.request("GET", "x")
        put(authority.issue_cert("node"), tmp_path)
        (tmp_path / "authority.pem").write_text("nonsense")
        with client_of(settings) as client, pytest.raises(InvalidConfiguration, match="authority"):
            client.request("GET", "x")


def test_a_master_without_tls_is_told_from_one_that_is_not_trusted(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(10_000)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"https://127.0.0.1:{listening.getsockname()[1]}"
        settings = HttpSettings(base_url=url, retries=0)
        with client_of(settings) as client, pytest.raises(NotTrusted, match="not speak TLS"):
            client.request("GET", "x")
        thread.join()


def test_a_token_is_shown_to_its_master_and_nobody_else(tmp_path: Path) -> None:
    with serving(None) as master, serving(None) as other:
        settings = HttpSettings(base_url=master, token="secret")
        assert "secret" not in repr(settings)
        with client_of(settings) as client:
            assert client.request("GET", "x").text.strip() == "Bearer secret"
            named = {"Authorization": "X-SlapPartition a"}
            assert client.request("GET", "x", headers=named).text.strip() == "X-SlapPartition a"
            assert client.request("GET", f"{other}/x").text.strip() == ""
            assert client.request("GET", f"{master}/elsewhere?to={other}/x").text.strip() == ""


def test_without_tls_no_file_is_needed(tmp_path: Path) -> None:
    with serving(None) as url, client_of(settings_of(url, tmp_path / "absent")) as client:
        assert client.request("GET", "x").status_code == 200
