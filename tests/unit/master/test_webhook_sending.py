"""Where webhooks may be, and how what is sent is signed."""

import base64
import hashlib
import hmac
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_network

import pytest
import trustme

from slapos.master.webhooks.outbox import wants
from slapos.master.webhooks.sending import NotSent, Sender, new_secret, signature
from slapos.protocol.errors import InvalidFields


def sender(*networks: str, address: str = "127.0.0.1") -> Sender:
    found = tuple(ip_network(each) for each in networks)
    return Sender(found, ssl.create_default_context(), lambda _host: [address])


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "ftp://example.com/",
        "file:///etc/passwd",
        "https://",
        "https://user:password@example.com/",
        "https://example.com/#there",
        "https://example.com:0/",
        "https://example.com:99999/",
        "https://example.com/a b",
        "https://example.com/\r\nX-Forged: 1",
        "https://exämple.com/",
        "http://example.com/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://10.1.2.3:8443/",
    ],
)
def test_a_url_that_can_never_be_sent_to_is_refused(url: str) -> None:
    with pytest.raises(InvalidFields):
        sender().check(url)


def test_a_public_address_by_tls_and_what_is_allowed_can_be_sent_to() -> None:
    sender().check("https://example.com/hook?x=1")
    sender("10.0.0.0/8").check("http://10.1.2.3:8080/hook")
    with pytest.raises(InvalidFields):
        sender("10.0.0.0/8").check("https://192.0.2.1/")


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "192.168.1.1",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fd00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
    ],
)
def test_a_name_that_leads_inside_is_not_followed(address: str) -> None:
    with pytest.raises(NotSent, match="not allowed"):
        sender(address=address).post("https://innocent.example.com/", b"", {})


def test_a_name_with_one_address_inside_is_not_followed() -> None:
    either = Sender((), ssl.create_default_context(), lambda _host: ["192.0.43.8", "10.0.0.1"])
    with pytest.raises(NotSent, match="not allowed"):
        either.post("https://innocent.example.com/", b"", {})


def test_a_name_that_nobody_has_is_said() -> None:
    def resolve(_host: str) -> list[str]:
        raise OSError("no such name")

    with pytest.raises(NotSent, match="no such name"):
        Sender((), ssl.create_default_context(), resolve).post("https://example.com/", b"", {})


def test_the_signature_is_that_of_standard_webhooks() -> None:
    secret = new_secret("a-token-of-chance")
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = hmac.new(key, b'msg_1.1700000000.{"a":1}', hashlib.sha256).digest()
    expected = "v1," + base64.b64encode(signed).decode()
    assert signature(secret, "msg_1", 1_700_000_000, b'{"a":1}') == expected


def test_events_are_named_alone_by_kind_or_all() -> None:
    assert wants(["instance.create"], "instance.create")
    assert wants(["instance.*"], "instance.delete")
    assert wants(["*"], "project.change")
    assert not wants(["instance.create", "instance_tree.*"], "instance.delete")


@contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """Have one connection answered; gives the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        thread.join(30)


def by_tls(name: str) -> tuple[Sender, Callable[[socket.socket], None]]:
    """Return a sender that trusts an authority, and a server with its certificate for a name."""
    authority = trustme.CA()
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(serving)

    def answer(connection: socket.socket) -> None:
        try:
            with serving.wrap_socket(connection, server_side=True) as secured:
                content = b""
                while not content.endswith(b"{}"):
                    content += secured.recv(65536)
                secured.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
        except ssl.SSLError:
            pass  # the client does not trust it

    networks = (ip_network("127.0.0.0/8"),)
    return Sender(networks, trusting, lambda _host: ["127.0.0.1"]), answer


def test_by_tls_the_certificate_is_of_the_name_not_of_the_address() -> None:
    sending, answer = by_tls("hook.example.com")
    with answering(answer) as port:
        assert sending.post(f"https://hook.example.com:{port}/", b"{}", {}) == 201


def test_a_certificate_of_another_name_is_not_trusted() -> None:
    sending, answer = by_tls("other.example.com")
    with answering(answer) as port, pytest.raises(NotSent, match="certificate"):
        sending.post(f"https://hook.example.com:{port}/", b"{}", {})


def test_one_that_answers_for_ever_is_hung_up_on() -> None:
    ended = threading.Event()

    def dribble(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        while connection.recv(65536):
            pass
        ended.set()

    networks = (ip_network("127.0.0.0/8"),)
    sending = Sender(networks, ssl.create_default_context(), lambda _h: ["127.0.0.1"], 0.1)
    with answering(dribble) as port:
        with pytest.raises(NotSent):
            sending.post(f"http://hook.example.com:{port}/", b"{}", {})
        assert ended.wait(30)
