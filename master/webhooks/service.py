"""What can be done with webhooks. Nothing here commits."""

import json
from collections.abc import Sequence

from sqlalchemy import Select, bindparam, func, insert, select
from sqlalchemy.orm import Session

from slapos.master.identity.caller import CallerKind, caller_of
from slapos.master.identity.model import Project
from slapos.master.identity.rights import Action, not_there, require, visible
from slapos.master.identity.secret_box import SecretBox
from slapos.master.identity.subject import Kind, Subject
from slapos.master.numbering import next_number
from slapos.master.tasks.task import sense
from slapos.master.webhooks.model import DeliveryState, Webhook, WebhookDelivery
from slapos.master.webhooks.outbox import DELIVER
from slapos.master.webhooks.sending import Sender, new_secret
from slapos.protocol.errors import Conflict, Forbidden, InvalidFields
from slapos.system.clock import Clock
from slapos.system.identifier import Identifiers

PURPOSE = "webhooks"
#: How many webhooks somebody may have in a project.
MOST = 20
SECRET_LENGTH = 32
PING = "ping"
_ACTS = ("create", "change", "delete", "*")
_KINDS = frozenset(kind.replace(" ", "_") for kind in Kind if kind is not Kind.WEBHOOK)

PROJECT = select(Project).where(Project.reference == bindparam("reference"))
WEBHOOK = select(Webhook).where(Webhook.reference == bindparam("reference"))


def create(
    session: Session,
    clock: Clock,
    identifiers: Identifiers,
    box: SecretBox,
    sender: Sender,
    *,
    project: str,
    url: str,
    events: Sequence[str],
) -> tuple[Webhook, str]:
    """Make a webhook of the caller's; return it and its secret, which nobody is told again."""
    caller = caller_of(session)
    found = session.scalar(PROJECT, {"reference": project})
    if found is None:
        raise not_there(Subject(Kind.PROJECT, project))
    require(session, Action.SEE, found)
    if caller.kind is not CallerKind.PERSON or caller.id is None:
        raise Forbidden("a webhook belongs to a person: only one who has signed in can make it")
    subject = Subject(Kind.WEBHOOK, "new", found.id, caller.id)
    require(session, Action.CREATE, subject)
    sender.check(url)
    check_events(events)
    mine = (Webhook.project_id == found.id, Webhook.owner_id == caller.id)
    if session.scalars(select(func.count()).where(*mine)).one() >= MOST:
        raise Conflict(f"you have {MOST} webhooks in {project}: remove one first")
    secret = new_secret(identifiers.token(SECRET_LENGTH))
    webhook = Webhook(
        reference=f"HOOK-{next_number(session)}",
        project=found,
        owner_id=caller.id,
        url=url,
        events=list(events),
        sealed_secret=box.seal(secret),
        created_at=clock.now(),
    )
    session.add(webhook)
    session.flush()
    return webhook, secret


def webhooks(session: Session) -> Select[Webhook]:
    """Return the SELECT of the webhooks that the caller may see."""
    return visible(
        session,
        select(Webhook),
        Kind.WEBHOOK,
        project=Webhook.project_id,
        owner=Webhook.owner_id,
    )


def find(
    session: Session, reference: str, action: Action = Action.SEE, *, lock: bool = False
) -> Webhook:
    """Return a webhook that the caller may do something with."""
    statement = WEBHOOK.with_for_update(of=Webhook) if lock else WEBHOOK
    webhook = session.scalar(statement, {"reference": reference})
    if webhook is None:
        raise not_there(Subject(Kind.WEBHOOK, reference))
    require(session, action, webhook)
    return webhook


def change(
    session: Session,
    clock: Clock,
    sender: Sender,
    webhook: Webhook,
    *,
    url: str | None,
    events: Sequence[str] | None,
    enabled: bool | None,
) -> None:
    """Change what is given of a webhook; enabled again, it goes on with what waits."""
    if url is not None:
        sender.check(url)
        webhook.url = url
    if events is not None:
        check_events(events)
        webhook.events = list(events)
    if enabled is True:
        webhook.enable()
        sense(session, DELIVER, str(webhook.id))
    elif enabled is False:
        webhook.disable(clock.now(), "its owner has disabled it")
    session.flush()


def deliveries(webhook: Webhook) -> Select[WebhookDelivery]:
    """Return the SELECT of what a webhook was told or is to be told."""
    return select(WebhookDelivery).where(WebhookDelivery.webhook_id == webhook.id)


def ping(session: Session, clock: Clock, webhook: Webhook) -> None:
    """Have a webhook told of nothing, for its owner to see that it works."""
    if webhook.disabled_at is not None:
        raise Conflict(f"{webhook.reference} is disabled: {webhook.reason}; enable it first")
    now = clock.now()
    body = json.dumps({"type": PING, "timestamp": now.isoformat(), "data": {}})
    row = {
        "webhook_id": webhook.id,
        "event": PING,
        "body": body,
        "state": DeliveryState.WAITING,
        "made_at": now,
        "attempts": 0,
        "reason": "",
    }
    session.execute(insert(WebhookDelivery), [row])
    sense(session, DELIVER, str(webhook.id))


def check_events(events: Sequence[str]) -> None:
    """Raise InvalidFields unless each is an event that there is, or stands for some."""
    for event in events:
        kind, _, act = event.partition(".")
        if event != "*" and (kind not in _KINDS or act not in _ACTS):
            raise InvalidFields(
                f"there is no event {event[:60]!r}; there are *, and of each of "
                f"{', '.join(sorted(_KINDS))}: {', '.join(_ACTS)}, such as instance.create",
                {"events": "there is no such event"},
            )
