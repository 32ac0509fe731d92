"""Checks of what the node remembers: releases and instances that failed, broken promises."""

from collections.abc import Iterator

from slapos.node.doctor.finding import Examined, Finding, ok, problem, warning
from slapos.node.record import PartitionRecord, ReleaseRecord, read_record


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
    well = 0
    for file in files:
        reference = file.stem
        record = read_record(PartitionRecord, file)
        told = f"{reference}: {record.told(doors.now())}"
        log = doors.settings.layout.partition(reference) / ".slapgrid" / "log" / "instance.log"
        if record.failures and record.is_waiting:
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
