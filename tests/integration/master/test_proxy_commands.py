"""`slapos proxy start` and `slapos proxy show`, as programs."""

import hashlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from slapos.protocol.marshal import loads
from tests.integration.master.factories import NODE, URL, format_form
from tests.integration.master.programs import COMMAND, client_of, configuration, running, slapos


def test_it_serves_until_it_is_told_to_end(tmp_path: Path, empty_database_uri: str) -> None:
    cfg = configuration(tmp_path, empty_database_uri)
    with running("--cfg", cfg) as (url, process):
        with client_of(url) as client:
            client.post_node_configuration(_told(2))
            client.supply(URL, NODE)
            assert client.request(software_url=URL, title="root").partition == "slappart0"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    with running("--cfg", cfg) as (url, _), client_of(url) as client:
        assert client.node_information(NODE).partitions[0].title == "root"


def test_what_was_answered_survives_a_kill(tmp_path: Path, empty_database_uri: str) -> None:
    cfg = configuration(tmp_path, empty_database_uri)
    with running("--cfg", cfg) as (url, process), client_of(url) as client:
        client.post_node_configuration(_told(2))
        client.request(software_url=URL, title="root")
        process.kill()
        process.wait(60)
    with running("--cfg", cfg) as (url, _), client_of(url) as client:
        assert client.node_information(NODE).partitions[0].title == "root"


def test_two_processes_on_one_database(tmp_path: Path, empty_database_uri: str) -> None:
    """Started at once on an empty database; what one is told, the other knows."""
    cfg = configuration(tmp_path, empty_database_uri)
    both: list[tuple[str, subprocess.Popen[str]]] = []
    go = threading.Barrier(3)
    done = threading.Event()

    def start() -> None:
        go.wait(60)
        with running("--cfg", cfg) as found:
            both.append(found)
            done.wait(60)

    threads = [threading.Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    go.wait(60)
    deadline = time.monotonic() + 60
    while len(both) < 2:
        assert time.monotonic() < deadline
        assert any(thread.is_alive() for thread in threads)
    try:
        (first, _), (second, _) = both
        with client_of(first) as one, client_of(second) as other:
            one.post_node_configuration(_told(2))
            for number, client in enumerate((one, other)):
                client.request(software_url=URL, title=f"i{number}")
                for each in (one, other):
                    held = [p for p in each.node_information(NODE).partitions if not p.is_free]
                    assert len(held) == number + 1
    finally:
        done.set()
        for thread in threads:
            thread.join(60)


def test_it_listens_on_loopback_only_unless_told_in_words(tmp_path: Path) -> None:
    cfg = configuration(tmp_path, str(tmp_path / "proxy.db"), host="0.0.0.0")
    ended = slapos("proxy", "start", "--cfg", cfg, check=False)
    assert ended.returncode == 1
    assert "this master has no sign-in" in ended.stderr
    assert "--unsafe-listen-beyond-loopback" in ended.stderr
    assert not (tmp_path / "proxy.db").exists()
    with running("--cfg", cfg, "--unsafe-listen-beyond-loopback") as (url, _):
        assert url.startswith("http://0.0.0.0:")


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        cfg = configuration(tmp_path, str(tmp_path / "proxy.db"), port=str(port))
        ended = slapos("proxy", "start", "--cfg", cfg, check=False)
    assert ended.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in ended.stderr


@pytest.mark.parametrize("port", ["many", "70000", "-1"])
def test_a_port_that_is_none_is_named(tmp_path: Path, port: str) -> None:
    cfg = configuration(tmp_path, str(tmp_path / "proxy.db"), port=port)
    ended = slapos("proxy", "start", "--cfg", cfg, check=False)
    assert ended.returncode == 1
    assert f"port is '{port}', which is no port number" in ended.stderr


def test_a_database_that_is_none_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "proxy.db"
    path.write_text("not a database, but something dear\n" * 100)
    before = path.read_bytes()
    for action in ("start", "show"):
        cfg = configuration(tmp_path, str(path))
        ended = slapos("proxy", action, "--cfg", cfg, check=False)
        assert ended.returncode == 1
        assert "file is not a database" in ended.stderr
        assert path.read_bytes() == before


def test_a_database_that_cannot_be_written_is_named() -> None:
    """As `nobody`, since nothing is closed to root."""
    with tempfile.TemporaryDirectory() as name:  # not tmp_path: only its owner may enter that
        folder = Path(name)
        with closing(sqlite3.connect(folder / "proxy.db")) as connection:
            connection.execute("PRAGMA user_version = 1")
        cfg = configuration(folder, str(folder / "proxy.db"))
        for path in (cfg, folder / "proxy.db"):
            path.chmod(0o444)
        folder.chmod(0o555)
        ended = subprocess.run(
            [*COMMAND, "proxy", "start", "--cfg", str(cfg)],
            capture_output=True,
            text=True,
            timeout=60,
            user="nobody" if os.geteuid() == 0 else None,
            check=False,
        )
        folder.chmod(0o755)
    assert ended.returncode == 1
    assert "have to be writable for this user" in ended.stderr


def test_what_the_master_knows_is_shown(tmp_path: Path, empty_database_uri: str) -> None:
    cfg = configuration(tmp_path, empty_database_uri)
    with running("--cfg", cfg) as (url, _), client_of(url) as client:
        client.post_node_configuration(_told(2))
        client.supply(URL, NODE)
        client.request(software_url=URL, title="root")
        client.request(software_url=URL, title="share", shared=True)
        client.publish(NODE, "slappart0", {"url": "http://[::1]/", "key": "a\nb"})
        shown = json.loads(slapos("proxy", "show", "--cfg", cfg, "--json").stdout)
        text = slapos("proxy", "show", "--cfg", cfg, "--params", "--slaves").stdout
    assert list(shown) == ["computers", "software", "partitions", "slaves", "params", "network"]
    assert shown["software"][0]["md5"] == hashlib.md5(URL.encode()).hexdigest()
    assert shown["partitions"][0]["title"] == "root"
    assert shown["network"][0]["address"] == "10.0.0.0"
    assert "key   a\\nb" in text
    assert "_share" in text
    assert "partitions:" not in text


def test_there_is_nothing_to_show_before_the_first_start(tmp_path: Path) -> None:
    ended = slapos("proxy", "show", "-u", tmp_path / "none.db", check=False)
    assert ended.returncode == 1
    assert "there is no database" in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_no_database_named_is_an_error(tmp_path: Path) -> None:
    cfg = tmp_path / "slapos.cfg"
    cfg.write_text("[slapos]\n")
    ended = slapos("proxy", "start", "--cfg", cfg, check=False)
    assert ended.returncode == 1
    assert "set database_uri in [slapproxy], or give --database-uri" in ended.stderr


def _told(partitions: int) -> dict[str, object]:
    told = loads(format_form(partitions)["xml"].encode())
    assert isinstance(told, dict)
    return told
