"""Reports on their way to a master: counted once, whatever happens to the link, to it, or to us."""

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path

import pytest

from slapos.node.report.journal import Journal
from slapos.node.report.reports import Reports
from slapos.node.report.sender import Sender
from slapos.protocol.errors import Forbidden, MasterFailed, MasterUnreachable, SlapOSError
from slapos.protocol.http_client import HttpClient, HttpSettings
from slapos.protocol.slap_client import SlapClient
from slapos.protocol.states import InstanceState
from slapos.system.identifier import SystemIdentifiers
from slapos.system.process_lock import AlreadyRunning, process_lock
from tests.fakes import NOON, FakeClock
from tests.integration.node.fake_master import FakeMaster, Link, running_master

REPORTS = "v1/nodes/node/reports"
URL = "http://example.com/hello/software.cfg"


@dataclass
class Node:
    """A node's reports, whose clock stands still, and its master, which takes many at once."""

    master: FakeMaster
    journal: Journal
    reports: Reports
    clock: FakeClock

    def usage(self, *names: str) -> None:
        self.reports.usage([(name.zfill(32), f"<journal>{name}</journal>") for name in names])

    def counted(self) -> list[str]:
        return [report["document"] for report in self.master.counted("usage")]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with running_master() as master:
        master.takes_reports = True
        clock = FakeClock()
        journal = Journal(tmp_path / "journal.db", clock, SystemIdentifiers())
        client = SlapClient(HttpClient(HttpSettings(base_url=master.url, timeout=10.0)))
        sender = Sender("node", journal, client, clock)
        yield Node(master, journal, Reports(journal, sender, clock, SystemIdentifiers()), clock)
        client.http.close()


def test_what_is_reported_arrives_as_the_contract_says(node: Node) -> None:
    reports = node.reports
    reports.state("slappart0", InstanceState.STARTED, timestamp="7")
    node.clock.advance(60)
    reports.instance_error("slappart1", "no \udc80", timestamp="8", since=NOON.timestamp())
    reports.related_instances("slappart0", ["child"])
    reports.available(URL)
    node.usage("a")
    reports.flush()
    told = list(node.master.reports.values())
    assert [len(report.pop("id")) for report in told] == [32] * 5
    noon, later = "2026-03-01T12:00:00+00:00", "2026-03-01T12:01:00+00:00"
    assert told == [
        {
            "at": noon,
            "kind": "instance",
            "partition": "slappart0",
            "state": "started",
            "error": None,
            "timestamp": "7",
            "since": noon,
        },
        {
            "at": later,
            "kind": "instance",
            "partition": "slappart1",
            "state": None,
            "error": "no \\udc80",
            "timestamp": "8",
            "since": noon,
        },
        {"at": later, "kind": "related_instances", "partition": "slappart0", "titles": ["child"]},
        {"at": later, "kind": "release", "url": URL, "state": "available", "message": ""},
        {"at": later, "kind": "usage", "document": "<journal>a</journal>"},
    ]
    assert node.reports.waiting().count == 0


def test_many_reports_go_in_few_requests_of_bounded_size(node: Node) -> None:
    for number in range(250):
        node.reports.state(f"slappart{number}", InstanceState.STARTED)
    for number in range(4):
        node.reports.usage([(str(number) * 32, "x" * 400_000)])
    node.reports.flush()
    assert node.master.batches == [100, 100, 52, 2]
    assert len(node.master.reports) == 254


def test_a_document_too_large_for_a_batch_is_sent_on_its_own(node: Node) -> None:
    node.usage("a")
    node.reports.usage([("b" * 32, "x" * 2_000_000)])
    node.usage("c")
    node.reports.flush()
    assert node.master.calls() == ["useComputer"]
    assert len(node.counted()) == 2
    assert node.reports.waiting().count == 0


@pytest.mark.parametrize("cut", [Link.CUT_BEFORE, Link.CUT_AFTER])
def test_a_lost_answer_loses_nothing_and_counts_nothing_twice(node: Node, cut: Link) -> None:
    fates = chain([cut, cut], repeat(Link.WHOLE))
    node.master.link = lambda: next(fates)
    node.usage("a", "b")
    node.reports.state("slappart0", InstanceState.STARTED)
    for _ in range(2):
        with pytest.raises(MasterUnreachable):
            node.reports.flush()
    node.reports.state("slappart0", InstanceState.STOPPED)
    node.reports.flush()
    assert sorted(node.counted()) == ["<journal>a</journal>", "<journal>b</journal>"]
    assert node.master.counted("instance")[-1]["state"] == "stopped"
    assert node.reports.waiting().count == 0


def test_a_master_that_fails_is_told_later(node: Node) -> None:
    node.master.failures[REPORTS] = (500, b"oops")
    node.usage(*"abcdefgh")
    with pytest.raises(MasterFailed):
        node.reports.flush()
    assert node.reports.waiting().count == 8
    node.master.failures.clear()
    node.reports.flush()
    assert len(node.counted()) == 8


@pytest.mark.parametrize(
    "answer",
    [b"", b"<html>welcome</html>", b"\x00\xff", b"[]", b'{"taken": 7}', b'{"taken": []}'],
)
def test_garbage_is_no_receipt(node: Node, answer: bytes) -> None:
    node.master.failures[REPORTS] = (200, answer)
    node.usage("a", "b")
    with pytest.raises(MasterFailed):
        node.reports.flush()
    assert node.reports.waiting().count == 2
    node.master.failures.clear()
    node.reports.flush()
    assert len(node.counted()) == 2


def test_who_is_not_let_in_keeps_what_it_has_to_say(node: Node) -> None:
    node.master.failures[REPORTS] = (403, b"your certificate has expired")
    node.usage("a")
    with pytest.raises(Forbidden):
        node.reports.flush()
    assert node.reports.waiting().count == 1


def test_a_master_without_the_call_gets_the_slap_calls(node: Node) -> None:
    node.master.takes_reports = False
    node.reports.state("slappart0", InstanceState.STARTED, timestamp="7")
    node.reports.instance_error("slappart1", "broken")
    node.reports.related_instances("slappart0", ["child"])
    node.reports.available(URL)
    node.reports.build_error("http://example.com/other", "broken too")
    node.usage("a")
    node.reports.flush()
    assert node.master.calls() == [
        "startedComputerPartition slappart0",
        "softwareInstanceError slappart1",
        "updateComputerPartitionRelatedInstanceList slappart0",
        "availableSoftwareRelease",
        "softwareReleaseError",
        "useComputer",
    ]
    assert node.master.told[0][1]["timestamp"] == "7"
    assert node.master.errors() == ["broken", "broken too"]


def test_a_master_without_the_call_is_asked_for_it_again_after_an_hour(node: Node) -> None:
    node.master.failures[REPORTS] = (405, b"")
    node.usage("a")
    node.reports.flush()
    node.master.failures.clear()
    node.usage("b")
    node.reports.flush()
    assert node.master.calls() == ["useComputer"] * 2
    node.clock.advance(3600)
    node.usage("c")
    node.reports.flush()
    assert len(node.counted()) == 1


def test_one_report_that_the_master_fails_with_does_not_hold_up_the_others(node: Node) -> None:
    node.master.takes_reports = False
    node.master.failures["softwareInstanceError"] = (500, b"")
    node.reports.instance_error("slappart0", "broken")
    node.reports.state("slappart1", InstanceState.STARTED)
    node.usage("a")
    with pytest.raises(MasterFailed):
        node.reports.flush()
    assert node.master.calls() == ["startedComputerPartition slappart1", "useComputer"]
    assert node.reports.waiting().count == 1


def test_what_is_refused_is_named_and_dropped_and_usage_is_put_aside(node: Node) -> None:
    node.master.refused = {"slappart0", "<journal>a</journal>"}
    node.reports.state("slappart0", InstanceState.STARTED)
    node.reports.state("slappart1", InstanceState.STARTED)
    node.usage("a", "b")
    refused = node.reports.flush()
    assert ["slappart0" in refused[0], "usage" in refused[1]] == [True, True]
    assert "not so" in refused[0]
    assert node.reports.waiting().count == 0
    assert len(node.master.reports) == 2
    [aside] = (node.journal.path.parent / "usage" / "refused").iterdir()
    assert aside.read_text() == "<journal>a</journal>"
    assert aside.stat().st_mode & 0o777 == 0o600


def test_a_refusal_counts_only_from_a_master_that_knows_the_node(node: Node) -> None:
    """What answers 404 to everything may be a web server whose master is not there just now."""
    node.master.takes_reports = False
    for call in ("useComputer", "getFullComputerInformation", "getComputerInformation"):
        node.master.failures[call] = (404, b"")
    node.usage("a")
    with pytest.raises(MasterFailed, match="does not know this node"):
        node.reports.flush()
    assert node.reports.waiting().count == 1
    node.master.failures.clear()
    node.master.takes_reports = True
    node.reports.flush()
    assert len(node.counted()) == 1


def to_another(node: Node, server: socket.socket, timeout: float) -> Reports:
    url = f"http://127.0.0.1:{server.getsockname()[1]}/"
    client = SlapClient(HttpClient(HttpSettings(base_url=url, timeout=timeout)))
    sender = Sender("node", node.journal, client, node.clock)
    return Reports(node.journal, sender, node.clock, SystemIdentifiers())


def test_a_master_that_says_nothing_is_given_up(node: Node) -> None:
    node.usage("a")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with pytest.raises(MasterUnreachable):
            to_another(node, silent, 0.2).flush()
        assert node.reports.waiting().count == 1


def test_a_silent_master_delays_no_build(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slapos.node.report.reports.BUILDING_PATIENCE", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        reports = to_another(node, silent, 20.0)
        assert reports.building(URL)
        assert reports.waiting().count == 1


def test_only_one_sends_at_a_time(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slapos.node.report.reports.PATIENCE", 0.0)
    node.usage("a")
    with process_lock(node.journal.sending):
        with pytest.raises(AlreadyRunning):
            node.reports.flush()
        node.reports.try_flush()
    assert node.reports.take_trouble() == ""
    node.reports.try_flush()
    assert len(node.counted()) == 1


def test_a_failed_attempt_is_not_made_again_at_once(node: Node) -> None:
    node.master.failures[REPORTS] = (500, b"")
    node.usage("a")
    node.reports.try_flush()
    node.master.failures.clear()
    node.reports.try_flush()
    assert node.counted() == []
    assert "kept here and sent later" in node.reports.take_trouble()
    node.clock.advance(60)
    node.reports.try_flush()
    assert len(node.counted()) == 1
    assert node.reports.take_trouble() == ""


def test_who_is_handed_the_sending_is_woken_by_each_report(node: Node) -> None:
    woken: list[int] = []
    node.reports.hand_over(lambda: woken.append(node.reports.waiting().count))
    node.reports.building(URL)
    node.usage("a")
    node.reports.try_flush()
    assert woken == [1, 2]
    assert node.master.reports == {}
    node.reports.flush()
    assert len(node.master.reports) == 2


def test_where_nothing_can_be_written_the_report_is_to_be_made_again(node: Node) -> None:
    node.journal.path.mkdir()
    assert not node.reports.state("slappart0", InstanceState.STARTED)
    with pytest.raises(SlapOSError):
        node.usage("a")
