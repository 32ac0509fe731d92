"""The document of a day, and that each day is reported once."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from lxml import etree

from slapos.node.monitor.billing import consumption, day_identifier, day_journal, hand_over
from slapos.node.monitor.history import DAY, Day, DaySum, History
from slapos.node.monitor.usage import Look
from slapos.node.report.consumption import check_consumption, check_journal
from slapos.node.report.reports import Reports
from slapos.protocol.errors import SlapOSError

MEBIBYTE = 1024**2
#: Half a processor and 100 MiB for half a day, 10 MiB of disk all day.
USED = DaySum(
    seconds=DAY / 2,
    cpu=DAY / 4,
    memory=100 * MEBIBYTE * DAY / 2,
    disk=10 * MEBIBYTE * DAY,
)
TODAY = Day(date="2026-03-01", partition="slappart0", part=0, used=USED)


class FakeReports:
    """Takes documents as the journal does: what has an identifier that it has is there once."""

    def __init__(self) -> None:
        self.documents: dict[str, str] = {}
        self.error: SlapOSError | None = None

    def usage(self, documents: Sequence[tuple[str, str]]) -> None:
        if self.error is not None:
            raise self.error
        for identifier, document in documents:
            self.documents.setdefault(identifier, document)


@pytest.fixture
def history(tmp_path: Path) -> History:
    made = History(tmp_path)
    days = {("2026-03-01", "slappart0"): USED, ("2026-03-01", "slappart1"): DaySum(seconds=60)}
    made.store(0, {}, days, Look(boot="", uptime=0, processes=()))
    return made


def test_amounts_are_means_of_24_hours_in_the_units_that_masters_know() -> None:
    document = consumption(TODAY)
    check_consumption(document)
    assert {
        str(one.findtext("resource")): float(one.findtext("quantity") or "")
        for one in etree.fromstring(document)
    } == {
        "service_module/cpu_load_percent": 25,
        "service_module/memory_used": 50,
        "service_module/disk_used": 10,
    }


def test_a_journal_says_which_day_and_partition_it_is_about() -> None:
    journal = day_journal("node", TODAY).encode()
    check_journal(journal)
    root = etree.fromstring(journal)
    assert root.findtext("transaction/start_date") == "2026-03-01 00:00:00"
    assert root.findtext("transaction/stop_date") == "2026-03-01 23:59:59"
    assert {one.text for one in root.iter("reference")} == {"node", "slappart0"}


def test_each_day_of_each_partition_has_an_identifier_of_its_own() -> None:
    days = [
        TODAY,
        replace(TODAY, date="2026-03-02"),
        replace(TODAY, partition="slappart1"),
        replace(TODAY, part=1),
    ]
    identifiers = {day_identifier("node", day) for day in days} | {day_identifier("other", TODAY)}
    assert len(identifiers) == 5
    assert day_identifier("node", replace(TODAY, used=DaySum())) in identifiers
    assert all(len(one) == 32 for one in identifiers)


def test_a_day_is_handed_over_once_whatever_fails(history: History) -> None:
    reports = FakeReports()
    doors = cast(Reports, reports)
    history.fix_days(before="2026-03-02")
    reports.error = SlapOSError("the disk is full")
    with pytest.raises(SlapOSError):
        hand_over(history, doors, "node")
    reports.error = None
    waiting = history.fixed_days(10)
    assert hand_over(history, doors, "node")
    # The partition that used nothing is not reported.
    assert list(reports.documents) == [day_identifier("node", TODAY)]
    assert history.fixed_days(10) == []
    # Killed before it was marked, it is handed over again, as the same.
    reports.usage([(day_identifier("node", day), day_journal("node", day)) for day in waiting[:1]])
    assert list(reports.documents) == [day_identifier("node", TODAY)]
