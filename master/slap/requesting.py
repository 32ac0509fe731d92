"""Who answers a request: this master, another one, or nobody because a frontend is not needed."""

from collections.abc import Callable
from dataclasses import dataclass

from flask import request
from flask.typing import ResponseReturnValue
from sqlalchemy.orm import Session

from slapos.master.http import Elsewhere, assembly, context, in_transaction
from slapos.master.provisioning import forwarded, lookup
from slapos.master.provisioning import service as provisioning
from slapos.master.provisioning.model import SoftwareInstance
from slapos.master.provisioning.service import InstanceOrder
from slapos.master.settings import OtherMaster
from slapos.master.slap import forwarding
from slapos.master.slap.asking import asking
from slapos.master.slap.frontend import Bypass, bypass
from slapos.master.slap.http_proxy import url_through
from slapos.protocol.messages import RequestedInstance
from slapos.protocol.states import InstanceState


@dataclass(frozen=True)
class Forwarded:
    """What another master answered."""

    master_url: str
    instance: RequestedInstance


def answer_request(
    order: InstanceOrder,
    requester: str | None,
    answer: Callable[[SoftwareInstance | Bypass | Forwarded], ResponseReturnValue],
) -> ResponseReturnValue:
    """Have a request answered, and return `answer` of what came of it.

    `requester` is the reference of the partition that asks, None for a person. Another master is
    asked after the transaction, never within. What is here already stays here.
    """
    if _may_be_elsewhere(order) and not _is_here(order):
        other = forwarding.other_master_for(context().settings, order, _own_urls())
        if other is not None:
            return Elsewhere(lambda: answer(_ask(other, order, requester or forwarding.USER)))
        without = bypass(order, url_through if request.scheme == "https" else None)
        if without is not None:
            return answer(without)
    session, clock, policy = context().session, context().clock, context().policy
    instance = provisioning.request_instance(session, clock, policy, order)
    lookup.load_place(session, instance)  # it is told
    return answer(instance)


def waiting_reason(instance: SoftwareInstance) -> str:
    """Return why an instance has no place yet, for the one who ordered it."""
    reason = instance.waiting_reason or "it is being given a place"
    return f"{instance.title!r} ({instance.reference}) was ordered and waits: {reason}"


def _may_be_elsewhere(order: InstanceOrder) -> bool:
    """Return whether it is worth a look: mostly there is one master, and no frontend is asked.

    In the full profile other masters are remote nodes, which the allocation knows.
    """
    if not asking().is_local:
        return False
    named = forwarding.MASTER_URL in order.filters
    return named or order.shared or bool(context().settings.other_masters)


def _is_here(order: InstanceOrder) -> bool:
    session = context().session
    found = lookup.find_by_title(session, order.title, order.shared, order.requester, order.tenant)
    return found is not None


def _own_urls() -> tuple[str, ...]:
    settings = context().settings
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return request.host_url, f"http://{host}:{settings.port}"


def _ask(other: OtherMaster, order: InstanceOrder, requester: str) -> Forwarded:
    answer = forwarding.forward(other, order, requester)
    parts = assembly()
    title = forwarding.title_elsewhere(order, requester)

    def remember(session: Session) -> None:
        if order.state is InstanceState.DESTROYED:
            forwarded.forget_forwarded(session, title, other.url)
        else:
            forwarded.remember_forwarded(session, parts.clock, title, other.url)

    in_transaction(parts, remember)
    return Forwarded(other.url, answer)
