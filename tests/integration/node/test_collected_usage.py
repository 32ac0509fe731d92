"""Usage between the partitions and the journal of reports: all of it, and each piece once."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from lxml import etree

from slapos.node.assembly import make_doors
from slapos.node.doors import Doors
from slapos.node.outcome import Result
from slapos.node.report import usage
from slapos.node.report.report_pass import report_partitions
from slapos.node.report.usage import CollectedUsage
from slapos.node.settings import NodeSettings
from slapos.protocol.errors import MasterUnreachable
from tests.fakes import FakeClock
from tests.integration.node.fake_master import FakeMaster, Link, running_master
from tests.integration.node.test_report_pass import CONSUMPTION
from tests.integration.node.test_reports_killed import JOURNAL

DAYS = 7
PARTITIONS = [f"slappart{number}" for number in range(20)]


@pytest.fixture
def master() -> Iterator[FakeMaster]:
    with running_master() as master:
        master.takes_reports = True
        yield master


@pytest.fixture
def doors(master: FakeMaster, tmp_path: Path) -> Doors:
    settings = NodeSettings(
        master_url=master.url,
        computer_id="node",
        software_root=tmp_path / "soft",
        instance_root=tmp_path / "inst",
    )
    return replace(make_doors(settings), clock=FakeClock())


def close_batch(doors: Doors, name: str, **documents: str) -> None:
    """A batch as the node closes it: documents by partition."""
    folder = doors.settings.layout.state / "usage" / name
    folder.mkdir(parents=True)
    for partition, document in documents.items():
        (folder / f"{partition}.0123.xml").write_text(document)


def movements(master: FakeMaster) -> list[etree._Element]:
    journals = [report["document"].encode() for report in master.counted("usage")]
    return [found for each in journals for found in etree.fromstring(each).iter("movement")]


def test_a_batch_that_was_handed_over_before_a_crash_counts_once(
    doors: Doors, master: FakeMaster
) -> None:
    for _ in range(2):
        close_batch(doors, "batch-20260301T120000.000000Z", slappart0=CONSUMPTION)
        CollectedUsage(doors).hand_over()
    assert doors.reports.waiting().count == 1
    for _ in range(2):
        doors.reports.flush()
        close_batch(doors, "batch-20260301T120000.000000Z", slappart0=CONSUMPTION)
        CollectedUsage(doors).hand_over()
    doors.reports.flush()
    assert len(movements(master)) == 1


def test_two_batches_of_the_same_content_both_count(doors: Doors, master: FakeMaster) -> None:
    close_batch(doors, "batch-20260301T120000.000001Z", slappart0=CONSUMPTION)
    close_batch(doors, "batch-20260301T120000.000002Z", slappart0=CONSUMPTION)
    CollectedUsage(doors).hand_over()
    doors.reports.flush()
    assert len(movements(master)) == 2


def test_a_journal_of_the_node_itself_counts_once_and_a_new_one_again(
    doors: Doors, master: FakeMaster
) -> None:
    folder = doors.settings.instance_root / "var" / "xml_report" / "node"
    folder.mkdir(parents=True)
    file, kept = folder / "day.xml", folder.parent / "kept"
    file.write_text(JOURNAL.format("x"))
    os.link(file, kept)
    CollectedUsage(doors).hand_over()
    doors.reports.flush()
    kept.rename(file)  # as if we had been killed before it was removed
    CollectedUsage(doors).hand_over()
    doors.reports.flush()
    assert len(master.counted("usage")) == 1
    file.write_text(JOURNAL.format("x"))
    CollectedUsage(doors).hand_over()
    doors.reports.flush()
    assert len(master.counted("usage")) == 2


def test_much_usage_is_cut_into_documents_of_which_many_fit_in_a_request(
    doors: Doors, master: FakeMaster
) -> None:
    movement = CONSUMPTION[CONSUMPTION.index("<movement>") : CONSUMPTION.index("</consumption>")]
    many = f"<consumption>{movement * 5000}</consumption>"
    close_batch(doors, "batch-20260301T120000.000000Z", slappart0=many, slappart1=CONSUMPTION)
    CollectedUsage(doors).hand_over()
    doors.reports.flush()
    documents = master.counted("usage")
    assert len(documents) > 1
    assert max(len(report["document"]) for report in documents) < 1.2 * usage.JOURNAL_SIZE
    found = movements(master)
    assert len(found) == 5001
    assert [one.findtext("reference") for one in found].count("slappart1") == 1
    assert master.calls() == []


def test_when_too_much_waits_it_stays_where_it_is(
    doors: Doors, master: FakeMaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "MOST_WAITING", 100)
    master.link = lambda: Link.CUT_BEFORE
    close_batch(doors, "batch-20260301T120000.000000Z", slappart0=CONSUMPTION)
    CollectedUsage(doors).hand_over()
    [outcome] = report_partitions(doors, [])
    assert (outcome.subject, outcome.result) == ("usage", Result.FAILED)
    assert "no partition is destroyed" in outcome.cause
    master.link = lambda: Link.WHOLE
    doors.reports.flush()
    assert report_partitions(doors, []) == []
    assert len(movements(master)) == 1


def test_a_week_without_the_link(doors: Doors, master: FakeMaster) -> None:
    """All usage arrives once, the last state of each partition arrives, in few requests."""
    clock = doors.clock
    master.link = lambda: Link.CUT_BEFORE
    sizes = []
    for day in range(DAYS):
        for hour in range(0, 24, 4):
            for partition in PARTITIONS:
                name = f"{day}.{hour}"
                doors.reports.instance_error(partition, f"Promise failed: {name}", timestamp=name)
            with pytest.raises(MasterUnreachable):
                doors.reports.flush()
            clock.sleep(4 * 3600.0)
        close_batch(doors, f"batch-2026030{day + 1}T000000.000000Z", slappart0=CONSUMPTION)
        CollectedUsage(doors).hand_over()
        sizes.append(doors.settings.layout.journal.stat().st_size)
        clock.sleep(86400.0 if day == 3 else -86400.0 if day == 4 else 0.0)  # and it jumps
    assert doors.reports.waiting().count == len(PARTITIONS) + DAYS
    assert sizes[-1] < sizes[0] + 100_000
    assert master.reports == {}
    master.link = lambda: Link.WHOLE
    doors.reports.flush()
    assert len(master.batches) == 1
    assert len(movements(master)) == DAYS
    told = {report["partition"]: report["timestamp"] for report in master.counted("instance")}
    assert told == dict.fromkeys(PARTITIONS, "6.20")
    assert doors.reports.waiting().count == 0
