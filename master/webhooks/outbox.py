"""What webhooks are to be told, written down in the transaction in which it happened."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import bindparam, exists, insert, or_, select
from sqlalchemy.orm import Session

from slapos.master.identity.caller import Role
from slapos.master.identity.model import Membership, Person, PersonState
from slapos.master.identity.subject import Kind
from slapos.master.tasks.task import sense
from slapos.master.webhooks.model import DeliveryState, Webhook, WebhookDelivery

#: The task that delivers; its keys are ids of webhooks.
DELIVER = "deliver_webhooks"

#: Whose owners see all of the project, and not only what is theirs.
_SEES_ALL = (
    exists()
    .where(
        Membership.person_id == Webhook.owner_id,
        or_(
            Membership.role == Role.ADMINISTRATOR,
            Membership.role == Role.PRODUCTION_MANAGER,
        ),
        or_(Membership.project_id == Webhook.project_id, Membership.project_id.is_(None)),
    )
    .label("sees_all")
)
LISTENING = (
    select(Webhook.id, Webhook.project_id, Webhook.owner_id, Webhook.events, _SEES_ALL)
    .join(Person, Person.id == Webhook.owner_id)
    .where(
        Webhook.project_id.in_(bindparam("projects", expanding=True)),
        Webhook.disabled_at.is_(None),
        Person.state == PersonState.ACTIVE,
    )
)


def put(session: Session, entries: Sequence[Mapping[str, Any]]) -> None:
    """Write down for webhooks what has just been written into the audit log."""
    # Not what happens to webhooks: a failing one would be told that it fails.
    entries = [entry for entry in entries if entry["object_kind"] != Kind.WEBHOOK]
    projects = {entry["project_id"] for entry in entries} - {None}
    if not projects:
        return
    listening = session.connection().execute(LISTENING, {"projects": sorted(projects)}).all()
    rows = [
        {
            "webhook_id": webhook.id,
            "event": event_of(entry),
            "body": body_of(entry),
            "state": DeliveryState.WAITING,
            "made_at": entry["at"],
            "attempts": 0,
            "reason": "",
        }
        for webhook in listening
        for entry in entries
        if webhook.project_id == entry["project_id"]
        and (webhook.sees_all or webhook.owner_id == entry["owner_id"])
        and wants(webhook.events, event_of(entry))
    ]
    if rows:
        session.connection().execute(insert(WebhookDelivery), rows)
        for webhook_id in sorted({row["webhook_id"] for row in rows}):
            sense(session, DELIVER, str(webhook_id))


def event_of(entry: Mapping[str, Any]) -> str:
    """Return the name of the event that an entry of the audit log is, such as instance.create."""
    return f"{entry['object_kind'].replace(' ', '_')}.{entry['act']}"


def wants(events: Iterable[str], event: str) -> bool:
    """Return whether an event is one of those: by name, as `instance.*`, or as `*`."""
    kind = event.partition(".")[0]
    return any(each in ("*", event, f"{kind}.*") for each in events)


def body_of(entry: Mapping[str, Any]) -> str:
    """Return what is sent."""
    told = {
        "type": event_of(entry),
        "timestamp": entry["at"].isoformat(),
        "data": {
            name: entry[name]
            for name in ("object_kind", "object", "caller_kind", "caller", "request_id", "changes")
        },
    }
    return json.dumps(told, separators=(",", ":"))
