"""How many requests one may send: a bucket of tokens for each caller, or for its address.

Buckets are this process's own, as to ask the database for each request would cost more than most
requests do. Each of a machine's web processes lets its share of the rate through; several machines
let so many times as much through. That is enough for what they are for, which is that nobody keeps
the others waiting. What can be guessed is counted in the database (`identity/attempts.py`).
"""

import ipaddress
import threading
from collections import OrderedDict
from dataclasses import dataclass

from slapos.master.settings import Rate
from slapos.protocol.errors import TooManyRequests
from slapos.system.clock import Clock

#: Buckets that a process keeps; the ones that were not used longest go first.
BUCKETS = 100_000
UNLIMITED = Rate(1e9, 1e9)
#: The part of an IPv6 address that belongs to one customer of a network.
CUSTOMER_PREFIX = 64


def share_of(rate: Rate | None, processes: int) -> Rate:
    """Return what one of some processes lets through; at least one request at once."""
    if rate is None:
        return UNLIMITED
    return Rate(rate.per_second / processes, max(1.0, rate.burst / processes))


@dataclass
class _Bucket:
    tokens: float
    filled_at: float


class Buckets:
    """The buckets of one rate, by whom they are for."""

    def __init__(self, rate: Rate, clock: Clock) -> None:
        self._rate, self._clock = rate, clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, name: str) -> None:
        """Take a token, or raise TooManyRequests."""
        with self._lock:
            bucket = self._filled(name)
            if bucket.tokens < 1:
                self._refuse(bucket)
            bucket.tokens -= 1

    def _filled(self, name: str) -> _Bucket:
        now = self._clock.monotonic()
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = _Bucket(self._rate.burst, now)
            if len(self._buckets) > BUCKETS:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(name)
        grown = bucket.tokens + (now - bucket.filled_at) * self._rate.per_second
        bucket.tokens, bucket.filled_at = min(grown, self._rate.burst), now
        return bucket

    def _refuse(self, bucket: _Bucket) -> None:
        seconds = max(1, round((1 - bucket.tokens) / self._rate.per_second + 0.5))
        raise TooManyRequests(
            f"you ask more often than {self._rate.per_second:g} times a second; "
            f"come back in {seconds} s",
            seconds,
        )


def neighbourhood(address: str) -> str:
    """Return what of an address counts as one: all of IPv4, the network's part of IPv6."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if found.version == 4:
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, CUSTOMER_PREFIX), strict=False))
