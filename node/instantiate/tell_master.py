"""What the master is told of a partition: each thing once, and again only when it changed."""

from contextlib import suppress
from dataclasses import replace

from slapos.node.doors import Doors
from slapos.node.record import PartitionRecord, write_record
from slapos.protocol.messages import PartitionInformation
from slapos.protocol.states import InstanceState

#: How a record of what was told begins when that is an error.
ERROR = "error: "
#: Seconds until a master that still believes in an error is told again: it may not know it yet.
REMINDER = 60.0


def is_state_told(
    wanted: PartitionInformation, record: PartitionRecord, state: InstanceState, now: float
) -> bool:
    """Return whether the master knows what a partition is; one that believes in an error may not.

    `now` is in seconds since 1970.
    """
    told_long_ago = abs(now - record.reported_at) > REMINDER
    return record.reported == str(_tellable(state)) and not (_is_error(wanted) and told_long_ago)


def tell_state(
    wanted: PartitionInformation, record: PartitionRecord, state: InstanceState, doors: Doors
) -> None:
    """Tell what it is, unless the master knows that."""
    if is_state_told(wanted, record, state, doors.now()):
        return
    state = _tellable(state)
    record = _telling(record, str(state), doors)
    if doors.reports.state(
        wanted.reference, state, timestamp=wanted.timestamp, since=record.reported_since
    ):
        write_record(doors.settings.layout.partition_record(wanted.reference), record)


def tell_error(
    wanted: PartitionInformation, record: PartitionRecord, message: str, doors: Doors
) -> None:
    """Tell that it failed, or does not keep its promises."""
    told = f"{ERROR}{message}"
    if record.reported == told:
        return
    record = _telling(record, told, doors)
    if doors.reports.instance_error(
        wanted.reference, message, timestamp=wanted.timestamp, since=record.reported_since
    ):
        with suppress(OSError):
            write_record(doors.settings.layout.partition_record(wanted.reference), record)


def is_error_told(record: PartitionRecord) -> bool:
    """Return whether an error is what was told last."""
    return record.reported.startswith(ERROR)


def _tellable(state: InstanceState) -> InstanceState:
    """Return what is told: that it is destroyed is for its destruction to say, once it is."""
    return InstanceState.STOPPED if state is InstanceState.DESTROYED else state


def _telling(record: PartitionRecord, told: str, doors: Doors) -> PartitionRecord:
    """Return what to remember once it is told; another error is no new beginning."""
    goes_on = record.reported.partition(":")[0] == told.partition(":")[0]
    now = doors.now()
    since = (record.reported_since if goes_on else 0.0) or now
    return replace(record, reported=told, reported_at=now, reported_since=since)


def _is_error(wanted: PartitionInformation) -> bool:
    """Return whether the master, where it says so at all, believes that the partition failed."""
    return (wanted.access_status or "").startswith("#error")
