"""What the agent measures while it works, asked for as Prometheus and an operator ask."""

import json
import re
import urllib.request
from http.client import HTTPException
from socket import create_server

from slapos.node.layout import WATCHED
from slapos.node.monitor.history import History
from tests.integration.node.monitor.test_endpoint import free_port
from tests.integration.node.world import World, until


def scrape(port: int) -> dict[str, float]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
            text = answer.read().decode()
    except (OSError, HTTPException):
        return {}
    found = re.findall(r"^([^# ]\S*) (\S+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in found}


def test_the_agent_samples_and_tells_prometheus(world: World) -> None:
    port = free_port()
    world.configure(
        poll_interval="0.2",
        monitor_interval="0.5",
        disk_usage_interval="0.5",
        metrics_listen=f"127.0.0.1:{port}",
    )
    world.release(world.installing("web"))
    world.want()
    with world.agent() as agent:
        processes = 'slapos_partition_processes{partition="slappart0"}'
        until(lambda: scrape(port).get(processes) == 1, "the partition's process is measured")
        until(lambda: 'slapos_partition_disk_bytes{partition="slappart0"}' in scrape(port))
        until(lambda: scrape(port).get("slapos_reports_waiting") == 0)
        found = scrape(port)
        assert found['slapos_instance_buildouts_total{result="done"}'] == 1
        assert found['slapos_partition_passes_total{result="done"}'] >= 1
        assert found["slapos_feed_connected"] == 0  # this master has none
        assert found["slapos_master_last_answer_timestamp_seconds"] > 1_700_000_000
        assert "another process measures" in world.run("collect").stdout
        status = world.run("status")
        assert f"agent: runs, process {agent.process.pid}; the master answered" in status.stdout
        assert "title of slappart0" in status.stdout
        world.master.failures["getFullComputerInformation"] = (500, b"")
        document = json.loads(world.run("status", "--json").stdout)
        assert document["partitions"][0]["title"] == "title of slappart0"
        assert document["node"]["agent"] == agent.process.pid
        assert agent.end() == 0
    [usage] = [u for name, u in History(world.layout.measurements).last_usages()[1].items() if name]
    assert usage.memory > 0
    assert f"web{WATCHED}" in world.run("status", "--processes").stdout
    assert "agent: does not run" in world.run("status").stdout


def test_a_port_in_use_stops_nothing_and_is_taken_once_it_is_free(world: World) -> None:
    with create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        world.configure(
            poll_interval="0.2", monitor_interval="0.2", metrics_listen=f"127.0.0.1:{port}"
        )
        world.want(url=None)
        with world.agent() as agent:
            until(lambda: agent.said("monitoring goes on, but"), "it is said")
            until((world.layout.measurements / "history.db").exists)
            taken.close()
            until(lambda: scrape(port), "it listens")
            assert agent.log.read_text().count("monitoring goes on") == 1
