"""The endpoint of the metrics, asked over a socket."""

import http.client
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from slapos.node.monitor.address import Address, read_address
from slapos.node.monitor.endpoint import MetricsEndpoint


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture
def address() -> Address:
    found = read_address(f"127.0.0.1:{free_port()}")
    assert found is not None
    return found


@pytest.fixture
def endpoint(address: Address) -> Iterator[MetricsEndpoint]:
    opened = MetricsEndpoint(address, lambda: "slapos_answer 42.0\n")
    yield opened
    opened.close()


def get(address: Address, path: str = "/metrics") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1")
    kind = socket.AF_UNIX if isinstance(address, Path) else socket.AF_INET
    connection.sock = socket.socket(kind)
    connection.sock.settimeout(20)
    connection.sock.connect(str(address) if isinstance(address, Path) else address)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


@pytest.mark.usefixtures("endpoint")
def test_it_answers_with_the_metrics_and_nothing_else(address: Address) -> None:
    assert get(address) == (200, "slapos_answer 42.0\n")
    assert get(address, "/etc/passwd")[0] == 404


@pytest.mark.usefixtures("endpoint")
def test_a_caller_that_says_nothing_is_left(address: Address) -> None:
    assert isinstance(address, tuple)
    with socket.create_connection(address):
        assert get(address)[0] == 200


@pytest.mark.usefixtures("endpoint")
def test_a_port_in_use_is_an_error_that_harms_nothing(address: Address) -> None:
    with pytest.raises(OSError, match="in use"):
        MetricsEndpoint(address, lambda: "")
    assert get(address)[0] == 200


def test_a_socket_is_for_the_nodes_user_and_replaces_one_that_was_left(tmp_path: Path) -> None:
    path = tmp_path / "metrics.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    endpoint = MetricsEndpoint(path, lambda: "slapos_answer 1.0\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert get(path)[0] == 200
    endpoint.close()
    assert not path.exists()
