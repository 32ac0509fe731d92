"""Checks of what the node remembers: what failed, broken promises, what the master is not told."""

from collections.abc import Iterator
from datetime import UTC, datetime

from slapos.node.doctor.finding import Examined
from slapos.node.record import PartitionRecord, ReleaseRecord, read_record
from slapos.node.report.eviction import kept_data
from slapos.node.report.journal import JournalFailed
from slapos.node.report.usage import MOST_WAITING
from slapos.system.finding import Finding, ok, problem, warning

#: Seconds that a report may wait: a master that is away so long is worth a word.
LONG = 3600.0


def check_releases(examined: Examined) -> Iterator[Finding]:
    """See that no build failed the last time."""
    doors = examined.doors
    files = sorted((doors.settings.layout.state / "software").glob("*.json"))
    failing = 0
    for file in files:
        record = read_record(ReleaseRecord, file)
        if record.failures:
            failing += 1
            log = doors.settings.software_root / file.stem / ".slapgrid" / "log" / "build.log"
            yield problem(
                f"{record.url or file.stem}: {record.told(doors.now())}; log: {log}",
                f"mend what the log tells, then 'slapos node software --now --only {file.stem}'",
            )
    if not failing:
        yield ok(f"none of the {len(files)} releases has failed")


def check_instances(examined: Examined) -> Iterator[Finding]:
    """See that no instantiation failed the last time, and that the promises hold."""
    doors = examined.doors
    files = sorted((doors.settings.layout.state / "instance").glob("*.json"))
    yield from _kept_data(examined)
    well = 0
    for file in files:
        reference = file.stem
        record = read_record(PartitionRecord, file)
        told = f"{reference}: {record.told(doors.now())}"
        log = doors.settings.layout.partition(reference) / ".slapgrid" / "log" / "instance.log"
        if record.left_since:
            since = datetime.fromtimestamp(record.left_since, UTC)
            yield warning(
                f"{reference}: {record.instance} ({record.title}) is in it, and the master has not "
                f"known it since {since:%Y-%m-%d %H:%M:%S} UTC",
                "after a restore of the master, save what is needed of it: it is ended and removed "
                "when the master gives its place to another instance",
            )
        elif record.failures and record.is_waiting:
            yield warning(
                f"{reference}: it waits for something: {record.cause}",
                "see whether what it waits for comes: 'slapos service info' of its service",
            )
        elif record.failures:
            remedy = f"mend what the log tells, then 'slapos node instance --only {reference}'"
            yield problem(f"{told}; log: {log}", remedy)
        elif record.promised is False:
            yield problem(
                f"{reference}: a promise fails", f"see 'slapos node promise --only {reference}'"
            )
        else:
            well += 1
    yield ok(f"{well} of {len(files)} instances have neither failed nor broken a promise")


def _kept_data(examined: Examined) -> Iterator[Finding]:
    for kept in kept_data(examined.doors.settings.layout):
        until = datetime.fromtimestamp(kept.until, UTC)
        yield warning(
            f"{kept.folder}: the data of {kept.instance}, which was in {kept.partition}, is kept "
            f"until {until:%Y-%m-%d %H:%M:%S} UTC",
            "save what is needed of it; it is removed then",
        )


def check_reports(examined: Examined) -> Iterator[Finding]:
    """See that reports can be written down, and that they get to the master."""
    doors = examined.doors
    layout = doors.settings.layout
    try:
        doors.reports.check()
        waiting = doors.reports.waiting()
    except JournalFailed as error:
        yield problem(str(error), "as long as it is so the master is not told how instances do")
        return
    for aside in sorted(layout.state.glob(f"{layout.journal.name}.damaged-*[0-9]Z")):
        yield warning(
            f"{aside}: a journal that was damaged; usage may be in it that was not sent",
            f"'sqlite3 {aside} .recover' shows what can be read; remove it when done",
        )
    refused = list((layout.state / "usage" / "refused").glob("*.xml"))
    if refused:
        folder = layout.instance_root / "var" / "xml_report" / doors.settings.computer_id
        yield warning(
            f"{refused[0].parent} has {len(refused)} documents of usage that the master refused",
            f"ask its operator why; what lies in {folder} is sent again",
        )
    if waiting.since is None:
        yield ok("no report waits for the master")
        return
    said = (
        f"{waiting.count} reports wait for the master since {waiting.since:%Y-%m-%d %H:%M:%S} UTC"
    )
    remedy = "see what the check 'master' finds; 'slapos node report' tries to send them"
    if waiting.usage_size > MOST_WAITING:
        size = f"{waiting.usage_size >> 20} MiB of them usage, so that no more is collected"
        yield problem(f"{said}, {size}", remedy)
    elif doors.now() - waiting.since.timestamp() > LONG:
        yield warning(said, remedy)
    else:
        yield ok(said)
