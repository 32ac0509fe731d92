"""See that an order makes sense of who may reach its instance."""

from slapos.node.doors import Doors
from slapos.node.instantiate.step import Work
from slapos.node.isolate.access import AUTHORIZED, REJECTED, is_restricted, sources


def check_sources(work: Work, doors: Doors) -> None:
    """Refuse nonsense, where there is a firewall. Raises InvalidSource."""
    if doors.settings.firewall:
        order = work.wanted.filter or {}
        is_restricted(order)
        for key in (AUTHORIZED, REJECTED):
            sources(order, key)
