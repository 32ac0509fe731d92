"""What the machine uses, by psutil."""

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil


@dataclass(frozen=True, kw_only=True)
class Disk:
    """A file system on a device, in bytes."""

    device: str
    mount_point: str
    total: int
    used: int
    free: int


@dataclass(frozen=True, kw_only=True)
class Temperature:
    """What a sensor says, in degrees Celsius; `alarm` is 1 when it is high, 2 when critical."""

    sensor: str
    degrees: float
    alarm: int


@dataclass(frozen=True, kw_only=True)
class Network:
    """Bytes, errors and dropped packets of an interface since it is there."""

    received: int
    sent: int
    receive_errors: int = 0
    send_errors: int = 0
    receive_drops: int = 0
    send_drops: int = 0


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The machine at one moment; memory in bytes, `busy` and `idle` in seconds of all processors.

    `available` is what programs can still get of the memory.
    """

    processors: int
    load: float
    busy: float
    idle: float
    memory: int
    available: int
    interfaces: dict[str, Network]
    disks: tuple[Disk, ...]
    temperatures: tuple[Temperature, ...]

    @property
    def memory_used(self) -> int:
        """Return what programs cannot get any more."""
        return self.memory - self.available

    @property
    def network(self) -> Network:
        """Return the sum of all interfaces."""
        names = Network.__dataclass_fields__
        every = self.interfaces.values()
        return Network(**{name: sum(getattr(one, name) for one in every) for name in names})


def read_machine() -> Machine:
    """Return how the machine is now."""
    times = psutil.cpu_times()
    memory = psutil.virtual_memory()
    idle = times.idle + getattr(times, "iowait", 0.0)
    # The time of guests is in `user` already.
    busy = times.user + times.nice + times.system + times.irq + times.softirq + times.steal
    return Machine(
        processors=psutil.cpu_count() or 1,
        load=os.getloadavg()[0],
        busy=busy,
        idle=idle,
        memory=memory.total,
        available=memory.available,
        interfaces=_interfaces(),
        disks=_disks(),
        temperatures=_temperatures(),
    )


def boot_identifier() -> str:
    """Return what tells this start of the machine from all others."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
        return stream.read().strip()


def _interfaces() -> dict[str, Network]:
    return {
        name: Network(
            received=one.bytes_recv,
            sent=one.bytes_sent,
            receive_errors=one.errin,
            send_errors=one.errout,
            receive_drops=one.dropin,
            send_drops=one.dropout,
        )
        for name, one in psutil.net_io_counters(pernic=True).items()
    }


def _disks() -> tuple[Disk, ...]:
    """Return the file systems on devices, each device once."""
    found: dict[str, Disk] = {}
    for one in psutil.disk_partitions():
        if one.device not in found and os.path.isdir(one.mountpoint):
            with suppress(OSError):  # unmounted just now
                usage = psutil.disk_usage(one.mountpoint)
                found[one.device] = Disk(
                    device=one.device,
                    mount_point=one.mountpoint,
                    total=usage.total,
                    used=usage.used,
                    free=usage.free,
                )
    return tuple(found.values())


def _temperatures() -> tuple[Temperature, ...]:
    read: Any = getattr(psutil, "sensors_temperatures", None)  # only where psutil has it
    found = []
    with suppress(OSError):
        for chip, sensors in (read() if read is not None else {}).items():
            for number, one in enumerate(sensors):
                alarms = (one.high is not None and one.current >= one.high) + (
                    one.critical is not None and one.current >= one.critical
                )
                name = f"{chip} {one.label or number}"
                found.append(Temperature(sensor=name, degrees=one.current, alarm=alarms))
    return tuple(found)
