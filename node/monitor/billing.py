"""What a partition used in a day, as a document for the master's bill."""

import hashlib
import logging

from lxml import etree

from slapos.node.doors import Doors
from slapos.node.monitor.history import DAY, Day, History
from slapos.node.report.consumption import make_journals
from slapos.node.report.reports import Reports
from slapos.protocol.errors import SlapOSError

logger = logging.getLogger(__name__)

#: Days that are handed over at once.
MOST_DAYS = 200
MEBIBYTE = 1024**2
#: Bytes that the movements of one day certainly do not have.
LARGEST = 1_000_000


def hand_over(history: History, reports: Reports, node: str) -> bool:
    """Hand days that are fixed over to the journal of reports; return whether those were all.

    One that is handed over again, after a crash, has the same identifier and counts once.
    Raises StoreFailed, JournalFailed.
    """
    days = history.fixed_days(MOST_DAYS)
    reports.usage(
        [(day_identifier(node, day), day_journal(node, day)) for day in days if day.used.is_some]
    )
    history.handed_over(days)
    return len(days) < MOST_DAYS


def bill_partition(history: History, doors: Doors, reference: str) -> None:
    """Report what a partition used so far, before it is destroyed and may be somebody else's."""
    try:
        if history.path.exists():
            history.fix_days(partition=reference)
            hand_over(history, doors.reports, doors.settings.computer_id)
            doors.reports.try_flush()
    except SlapOSError as error:
        logger.warning("%s: what it used is reported later: %s", reference, error)


def day_identifier(node: str, day: Day) -> str:
    """Return the identifier under which a day is reported, whenever and however often that is."""
    named = "\0".join((node, day.date, day.partition, str(day.part)))
    return hashlib.sha256(named.encode()).hexdigest()[:32]


def day_journal(node: str, day: Day) -> str:
    """Return the journal of a day, with means over its 24 hours."""
    [journal] = make_journals(
        node,
        f"{day.date} 23:59:59",
        [(day.partition, consumption(day))],
        largest=LARGEST,
        start=f"{day.date} 00:00:00",
    )
    return journal.decode()


def consumption(day: Day) -> bytes:
    """Return the consumption document of a day.

    The resources and their units are those that masters know: percent of one processor, and MiB.
    """
    root = etree.Element("consumption")
    for resource, title, quantity in (
        ("cpu_load_percent", "Processor load", day.used.cpu * 100 / DAY),
        ("memory_used", "Memory", day.used.memory / DAY / MEBIBYTE),
        ("disk_used", "Disk", day.used.disk / DAY / MEBIBYTE),
    ):
        movement = etree.SubElement(root, "movement")
        for name, text in (
            ("resource", f"service_module/{resource}"),
            ("title", f"{title}, mean of {day.date}"),
            ("reference", day.partition),
            ("quantity", f"{quantity:.6f}"),
            ("price", "0.0"),
            ("VAT", ""),
            ("category", ""),
        ):
            etree.SubElement(movement, name).text = text
    document: bytes = etree.tostring(root)
    return document
