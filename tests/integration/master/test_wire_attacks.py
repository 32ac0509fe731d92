"""What somebody sends who wants a request to end elsewhere than it does, or never."""

import shutil
import socket
import ssl
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from flask import Flask

from slapos.master.settings import Settings
from tests.integration.master.test_tls_server import application, until
from tests.integration.master.web_server import answer_of, connected, is_closed, served

pytestmark = pytest.mark.parametrize("database_uri", ["sqlite"], indirect=True)

#: What is hidden behind the end of a request, for who sees the end elsewhere.
HIDDEN = b"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n"
HEALTHY = b'"status":"ok"'
POST = b"POST /supplySupply HTTP/1.1\r\nHost: x\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(HIDDEN)
CHUNKED = b"Transfer-Encoding: chunked\r\n"

#: What a client hears of a server that ends the handshake; one of its own has other words.
REFUSED = r"closed \(EOF\)|EOF occurred|ALERT"

ATTACKS = {
    "a length and chunks": POST + LENGTH + CHUNKED + b"\r\n0\r\n\r\n" + HIDDEN,
    "chunks and a length": POST + CHUNKED + LENGTH + b"\r\n0\r\n\r\n" + HIDDEN,
    "two lengths": POST + b"Content-Length: 0\r\n" + LENGTH + b"\r\n" + HIDDEN,
    "two lengths in one": POST + b"Content-Length: 0, %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
    "a length with a sign": POST + b"Content-Length: +0\r\n\r\n" + HIDDEN,
    "a negative length": POST + b"Content-Length: -1\r\n\r\n" + HIDDEN,
    "a length that is none": POST + b"Content-Length: 0x0\r\n\r\n" + HIDDEN,
    "another coding": POST + b"Transfer-Encoding: xchunked\r\n" + LENGTH + b"\r\n" + HIDDEN,
    "chunks that are not last": POST + b"Transfer-Encoding: chunked, x\r\n\r\n0\r\n\r\n" + HIDDEN,
    "a space before the colon": POST
    + b"Transfer-Encoding : chunked\r\n"
    + LENGTH
    + b"\r\n"
    + HIDDEN,
    "a length with a space before the colon": POST + b"Content-Length : 0\r\n\r\n" + HIDDEN,
    "a line that goes on": POST
    + b"X: a\r\n Transfer-Encoding: chunked\r\n"
    + LENGTH
    + b"\r\n"
    + HIDDEN,
    "line feeds alone": POST.replace(b"\r\n", b"\n") + b"Content-Length: 0\n\n" + HIDDEN,
    "a chunk with a length that is none": POST + CHUNKED + b"\r\nzz\r\n\r\n" + HIDDEN,
    "a chunk that ends in a line feed": POST + CHUNKED + b"\r\n1\nx\n0\r\n\r\n" + HIDDEN,
    "a chunk that is longer than it says": POST + CHUNKED + b"\r\n1\r\nxyz\r\n0\r\n\r\n" + HIDDEN,
    "a NUL in a field": POST + b"X: a\0b\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "a carriage return in a field": POST
    + b"X: a\rContent-Length: 5\r\nContent-Length: 0\r\n\r\n"
    + HIDDEN,
}


@pytest.fixture
def port(app: Flask) -> Iterator[int]:
    with served(app) as port:
        yield port


def all_of(connection: socket.socket) -> bytes:
    """Return what comes until the connection is closed, by the other end or by our patience."""
    received = b""
    connection.settimeout(1)
    with suppress(TimeoutError, ConnectionResetError):
        while more := connection.recv(65536):
            received += more
    return received


@pytest.mark.parametrize("name", ATTACKS)
def test_where_a_request_ends_is_not_in_doubt(port: int, name: str) -> None:
    """It is refused, and what comes behind it is not read: the connection is closed."""
    with connected(port) as connection:
        connection.sendall(ATTACKS[name])
        received = all_of(connection)
        assert received.startswith(b"HTTP/1.1 400 "), received
        assert HEALTHY not in received
        assert is_closed(connection)


def test_a_get_with_a_body_ends_where_it_says(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(b"GET /v1/nodes HTTP/1.1\r\nHost: x\r\n" + LENGTH + b"\r\n" + HIDDEN)
        assert HEALTHY not in answer_of(connection)
        connection.sendall(HIDDEN)
        assert HEALTHY in answer_of(connection)


NGINX = """\
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  upstream master {{ server 127.0.0.1:{master}; keepalive 1; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://master;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_request_buffering off;
    }}
  }}
}}
"""


def test_what_nginx_passes_on_ends_for_the_master_where_it_does_for_nginx(
    port: int, tmp_path: Path
) -> None:
    """On the one connection between them, nobody's request is answered with another's."""
    program = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if program is None:
        pytest.skip("there is no nginx on this machine")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        front = int(listener.getsockname()[1])
    text = NGINX.format(folder=tmp_path, port=front, master=port)
    (tmp_path / "nginx.conf").write_text(text)
    words = [program, "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")]
    with subprocess.Popen(words, stderr=subprocess.PIPE) as nginx:
        try:
            until(lambda: _listens(front))
            for name, attack in ATTACKS.items():
                with connected(front) as connection:
                    connection.sendall(attack.replace(b"/v1/health", b"/v1/hidden"))
                    connection.shutdown(socket.SHUT_WR)
                    all_of(connection)
                with connected(front) as connection:
                    connection.sendall(HIDDEN)
                    answer = answer_of(connection)
                    assert HEALTHY in answer, (name, answer)
        finally:
            nginx.terminate()
            nginx.communicate(timeout=30)


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def test_clients_with_half_a_head_hold_nobody_up(port: int) -> None:
    with ExitStack() as stack:
        for _ in range(90):
            stack.enter_context(connected(port)).sendall(b"GET /v1/nodes HTTP/1.1\r\nX: ")
        connection = stack.enter_context(connected(port))
        connection.sendall(HIDDEN)
        assert HEALTHY in answer_of(connection)


def test_a_head_that_never_ends_is_not_waited_for_however_often_a_byte_comes(app: Flask) -> None:
    with served(app, idle=1) as port, connected(port) as connection:
        connection.sendall(b"GET /v1/nodes HTTP/1.1\r\nX: ")
        connection.settimeout(0.1)
        for _ in range(100):  # ten seconds at most; one is allowed
            with suppress(TimeoutError):
                if not connection.recv(1):
                    return
            try:
                connection.sendall(b"x")
            except OSError:
                return
        raise AssertionError("the server waits and waits")


def test_what_fails_tells_nothing_of_the_inside(app: Flask) -> None:
    def fail() -> str:
        raise RuntimeError("a defect of ours")

    app.add_url_rule("/fails", view_func=fail)
    with served(app) as port, connected(port) as connection:
        connection.sendall(b"GET /fails HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = answer_of(connection)
    assert b"internal_server_error" in answer
    for told in (b"Traceback", b"RuntimeError", b"a defect", b".py", b"werkzeug", b"uvicorn"):
        assert told not in answer, told


@pytest.fixture
def tls_port(settings: Settings, tmp_path: Path) -> Iterator[int]:
    with served(application(settings, tmp_path, tls=True)) as port:
        yield port


def _shake_hands(port: int, context: ssl.SSLContext) -> str:
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with connected(port) as connection, context.wrap_socket(connection) as secured:
        return str(secured.version())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_versions_of_tls_are_refused(tls_port: int, version: ssl.TLSVersion) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")  # the client would take it
    with pytest.raises(ssl.SSLError, match=REFUSED):
        _shake_hands(tls_port, context)


@pytest.mark.parametrize(
    "ciphers", ["NULL", "aNULL", "AES128-SHA", "AES128-SHA256", "AES256-GCM-SHA384", "CAMELLIA"]
)
def test_weak_ciphers_are_refused(tls_port: int, ciphers: str) -> None:
    """Those without encryption or proof, without forward secrecy, or of another time."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(f"{ciphers}:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError, match=REFUSED):
        _shake_hands(tls_port, context)


def test_todays_versions_of_tls_are_taken(tls_port: int) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    assert _shake_hands(tls_port, context) == "TLSv1.3"
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert _shake_hands(tls_port, context) == "TLSv1.2"
