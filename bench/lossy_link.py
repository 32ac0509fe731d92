"""Two network namespaces and a bad link between them: a userspace shaper of IP packets.

Each namespace has a tun interface; a thread carries packets from one to the other, each after a
delay, and loses some of them. So TCP meets what it would meet on a real link, also where the
kernel has no netem. Needs root.
"""

import ctypes
import fcntl
import heapq
import os
import random
import selectors
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

Kind = TypeVar("Kind")

#: ioctl TUNSETIFF, and its flags: IP packets, without a header before each.
SET_INTERFACE, TUN, NO_HEADER = 0x400454CA, 1, 0x1000
NEW_NETWORK = 0x40000000
LARGEST_PACKET = 65536
#: Packets that wait for their time; what comes then is lost, as in a router's queue.
LONGEST_QUEUE = 1000
ADDRESSES = ("10.77.0.1", "10.77.0.2")


@dataclass(frozen=True)
class Link:
    """A link: the namespaces of its two sides, and their addresses."""

    names: tuple[str, str]
    addresses: tuple[str, str] = ADDRESSES

    def enter(self, side: int) -> tuple[str, ...]:
        """Return the words that have a command run on a side."""
        return ("ip", "netns", "exec", self.names[side])


@contextmanager
def lossy_link(*, delay: float, loss: float, seed: int = 1) -> Iterator[Link]:
    """Make a link that takes `delay` seconds each way and loses the share `loss` of packets."""
    names = [f"slapos-{os.getpid()}-{side}" for side in "ab"]
    stop_end, stop = os.pipe()
    tunnels: list[int] = []
    try:
        for name, address, other in zip(names, ADDRESSES, reversed(ADDRESSES), strict=True):
            _ip("netns", "add", name)
            tunnels.append(inside(name, _make_tunnel))
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "addr", "add", address, "peer", other, "dev", "link0")
            _ip("-n", name, "link", "set", "link0", "up")
        shaper = threading.Thread(
            target=_carry, args=(tunnels, stop_end, delay, loss, random.Random(seed)), daemon=True
        )
        shaper.start()
        yield Link((names[0], names[1]))
        os.write(stop, b"x")
        shaper.join()
    finally:
        for descriptor in (*tunnels, stop_end, stop):
            os.close(descriptor)
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def inside(name: str, action: Callable[[], Kind]) -> Kind:
    """Do something in a network namespace, in a thread of its own: only that one is in it."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_enter_and_do, name, action).result()


def _enter_and_do(name: str, action: Callable[[], Kind]) -> Kind:
    namespace = os.open(f"/run/netns/{name}", os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(namespace, NEW_NETWORK):
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(namespace)
    return action()


def _make_tunnel() -> int:
    """Return the descriptor of a new tun interface `link0`."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, SET_INTERFACE, struct.pack("16sH", b"link0", TUN | NO_HEADER))
    return descriptor


def _carry(tunnels: list[int], stop: int, delay: float, loss: float, chance: random.Random) -> None:
    """Carry packets until something comes from `stop`."""
    to = dict(zip(tunnels, reversed(tunnels), strict=True))
    queue: list[tuple[float, int, int, bytes]] = []
    selector = selectors.DefaultSelector()
    for descriptor in (*tunnels, stop):
        selector.register(descriptor, selectors.EVENT_READ)
    number = 0
    while True:
        wait = max(0.0, queue[0][0] - time.monotonic()) if queue else None
        for key, _ in selector.select(wait):
            if key.fd == stop:
                return
            packet = os.read(key.fd, LARGEST_PACKET)
            if chance.random() >= loss and len(queue) < LONGEST_QUEUE:
                number += 1
                heapq.heappush(queue, (time.monotonic() + delay, number, to[key.fd], packet))
        while queue and queue[0][0] <= time.monotonic():
            _, _, descriptor, packet = heapq.heappop(queue)
            os.write(descriptor, packet)
