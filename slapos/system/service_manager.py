"""Telling systemd that a program is ready and alive, where it asks for that (sd_notify)."""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress


class ServiceManager:
    """What started this process, as far as it listens on `NOTIFY_SOCKET`."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        self._is_watching = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._limit = environment.get("WATCHDOG_USEC", "")

    @property
    def interval(self) -> float | None:
        """Seconds between two signs of life: half of what is allowed; None when none is wanted."""
        if not self._address or not self._is_watching or not self._limit.isdigit():
            return None
        return max(int(self._limit) / 2_000_000, 0.1)

    def ready(self) -> None:
        """Tell that all is at work."""
        self._tell("READY=1")

    def alive(self) -> None:
        """Give a sign of life."""
        self._tell("WATCHDOG=1")

    def reloading(self, monotonic: float) -> None:
        """Tell that a reload has begun, at that time of the monotonic clock; `ready` ends it."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={int(monotonic * 1_000_000)}")

    def stopping(self) -> None:
        """Tell that the program ends."""
        self._tell("STOPPING=1")

    def _tell(self, text: str) -> None:
        if not self._address:
            return
        address = self._address
        if address.startswith("@"):  # a name in the abstract namespace
            address = "\0" + address[1:]
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
            door.sendto(text.encode(), address)
