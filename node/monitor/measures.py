"""What a sample says, as metrics."""

from collections.abc import Mapping

from slapos.node.monitor.history import MACHINE, DaySum
from slapos.node.monitor.machine import Machine
from slapos.node.monitor.metrics import PROMISES_FAILING, Metric, Metrics
from slapos.node.monitor.usage import Usage

_PARTITION = ("partition",)
# A partition's title is no label: customers choose it, and everybody here can read the metrics.
CPU = Metric("counter", "slapos_partition_cpu_seconds_total", "Processor time.", _PARTITION)
READ = Metric("counter", "slapos_partition_read_bytes_total", "Read from disks.", _PARTITION)
WRITTEN = Metric("counter", "slapos_partition_written_bytes_total", "Written to disks.", _PARTITION)
RECEIVED = Metric(
    "counter",
    "slapos_partition_received_bytes_total",
    "Received through the partition's tap or tun.",
    _PARTITION,
)
SENT = Metric(
    "counter",
    "slapos_partition_sent_bytes_total",
    "Sent through the partition's tap or tun.",
    _PARTITION,
)
MEMORY = Metric(
    "gauge",
    "slapos_partition_memory_bytes",
    "Resident memory; what processes share counts for each.",
    _PARTITION,
)
PROCESSES = Metric("gauge", "slapos_partition_processes", "Processes.", _PARTITION)
THREADS = Metric("gauge", "slapos_partition_threads", "Threads.", _PARTITION)
DISK = Metric(
    "gauge", "slapos_partition_disk_bytes", "Disk used, measured once in a while.", _PARTITION
)

LOAD = Metric("gauge", "slapos_machine_load1", "Load, mean of a minute.")
BUSY = Metric("counter", "slapos_machine_busy_seconds_total", "Time of processors at work.")
IDLE = Metric("counter", "slapos_machine_idle_seconds_total", "Time of processors with no work.")
PROCESSORS = Metric("gauge", "slapos_machine_processors", "Processors.")
MEMORY_TOTAL = Metric("gauge", "slapos_machine_memory_bytes", "Memory.")
MEMORY_AVAILABLE = Metric(
    "gauge", "slapos_machine_available_memory_bytes", "Memory that programs can still get."
)
MACHINE_RECEIVED = Metric(
    "counter", "slapos_machine_received_bytes_total", "Received by all interfaces."
)
MACHINE_SENT = Metric("counter", "slapos_machine_sent_bytes_total", "Sent by all interfaces.")
DISK_USED = Metric("gauge", "slapos_machine_disk_used_bytes", "Disk used.", ("device",))
DISK_FREE = Metric("gauge", "slapos_machine_disk_free_bytes", "Disk free.", ("device",))
TEMPERATURE = Metric("gauge", "slapos_machine_temperature_celsius", "Temperature.", ("sensor",))


def show(
    metrics: Metrics, machine: Machine, usages: Mapping[str, Usage], totals: Mapping[str, DaySum]
) -> None:
    """Have the metrics show a sample; `totals` is what partitions used since the node began."""
    partitions = {name: one for name, one in usages.items() if name != MACHINE}
    counted = [name for name, one in partitions.items() if one.received is not None]
    for metric, field in ((CPU, "cpu"), (READ, "read"), (WRITTEN, "written")):
        metrics.replace(metric, {(name,): getattr(one, field) for name, one in totals.items()})
    for metric, field in ((RECEIVED, "received"), (SENT, "sent")):
        metrics.replace(metric, {(name,): getattr(totals[name], field) for name in counted})
    for metric, field in ((MEMORY, "memory"), (PROCESSES, "processes"), (THREADS, "threads")):
        metrics.replace(metric, {(name,): getattr(one, field) for name, one in partitions.items()})
    metrics.retain(PROMISES_FAILING, partitions)
    metrics.replace(
        DISK, {(name,): one.disk for name, one in partitions.items() if one.disk is not None}
    )
    for metric, value in (
        (LOAD, machine.load),
        (BUSY, machine.busy),
        (IDLE, machine.idle),
        (PROCESSORS, machine.processors),
        (MEMORY_TOTAL, machine.memory),
        (MEMORY_AVAILABLE, machine.available),
        (MACHINE_RECEIVED, machine.network.received),
        (MACHINE_SENT, machine.network.sent),
    ):
        metrics.measure(metric, value)
    metrics.replace(DISK_USED, {(disk.device,): disk.used for disk in machine.disks})
    metrics.replace(DISK_FREE, {(disk.device,): disk.free for disk in machine.disks})
    metrics.replace(TEMPERATURE, {(one.sensor,): one.degrees for one in machine.temperatures})
