"""Webhooks over HTTP."""

from typing import Annotated, Any

from flask import Blueprint
from pydantic import Field

from slapos.master import rest
from slapos.master.http import context
from slapos.master.identity.rights import Action
from slapos.master.identity.secret_box import SecretBox
from slapos.master.secret_file import read_secret
from slapos.master.webhooks import service
from slapos.master.webhooks.model import EVENT_LENGTH, URL_LENGTH, Webhook, WebhookDelivery
from slapos.master.webhooks.sending import Sender, system_sender
from slapos.protocol.errors import Conflict, Forbidden, NotFound, NotReady

blueprint = Blueprint("webhooks", __name__, url_prefix="/v1/webhooks")

Url = Annotated[str, Field(min_length=1, max_length=URL_LENGTH)]
Events = Annotated[
    list[Annotated[str, Field(max_length=EVENT_LENGTH)]],
    Field(min_length=1, max_length=50, description="Such as instance.create, instance.*, or *."),
]


class NewWebhook(rest.Body):
    """A webhook that is wanted."""

    project: Annotated[str, Field(max_length=40, description="Such as PROJ-1.")]
    url: Url
    events: Events


class WebhookChange(rest.Body):
    """What is to be another than it is."""

    url: Url | None = None
    events: Events | None = None
    enabled: bool | None = None


class WebhookShown(rest.Answer):
    """A webhook; `reason` is why it is disabled."""

    reference: str
    project: str
    url: str
    events: list[str]
    created_at: rest.Time
    enabled: bool
    failing_since: rest.Time | None
    reason: str


class NewWebhookShown(WebhookShown):
    """A webhook that was just made; its secret is told this once."""

    secret: str


class WebhooksShown(rest.Paged):
    """Webhooks, the oldest first."""

    webhooks: list[WebhookShown]


class DeliveryShown(rest.Answer):
    """That a webhook was told of an event, or is to be told; `id` is the header Webhook-Id."""

    id: str
    event: str
    state: str
    made_at: rest.Time
    attempts: int
    tried_at: rest.Time | None
    status: int | None
    reason: str
    body: str


class DeliveriesShown(rest.Paged):
    """What a webhook was told, the newest first."""

    deliveries: list[DeliveryShown]


@blueprint.post("")
@rest.operation(
    summary="Have an address told of what happens in a project",
    body=NewWebhook,
    answer=NewWebhookShown,
    status=201,
    errors=(NotFound, Forbidden, Conflict),
)
def make_webhook(body: NewWebhook) -> rest.Reply:
    """Make a webhook."""
    webhook, secret = service.create(
        context().session,
        context().clock,
        context().identifiers,
        _box(),
        _sender(),
        project=body.project,
        url=body.url,
        events=body.events,
    )
    shown = {**_shown(webhook), "secret": secret}
    return rest.Reply(shown, location=f"/v1/webhooks/{webhook.reference}")


@blueprint.get("")
@rest.operation(summary="Show webhooks", query=rest.PagedQuery, answer=WebhooksShown)
def show_webhooks(query: rest.PagedQuery) -> dict[str, Any]:
    """Show webhooks."""
    session = context().session
    found = rest.page(session, service.webhooks(session), [Webhook.id], query)
    return {"webhooks": [_shown(each) for each in found], "next": found.next}


@blueprint.get("/<reference>")
@rest.operation(summary="Show a webhook", answer=WebhookShown, errors=(NotFound,))
def show_webhook(reference: str) -> dict[str, Any]:
    """Show a webhook."""
    return _shown(service.find(context().session, reference))


@blueprint.patch("/<reference>")
@rest.operation(
    summary="Change a webhook: another address, other events; off, or on again",
    body=WebhookChange,
    answer=WebhookShown,
    errors=(NotFound, Forbidden),
    matches=True,
)
def change_webhook(reference: str, body: WebhookChange) -> dict[str, Any]:
    """Change a webhook."""
    session = context().session
    webhook = service.find(session, reference, Action.CHANGE, lock=True)
    rest.check_match(WebhookShown.model_validate(_shown(webhook)))
    service.change(
        session,
        context().clock,
        _sender(),
        webhook,
        url=body.url,
        events=body.events,
        enabled=body.enabled,
    )
    return _shown(webhook)


@blueprint.delete("/<reference>")
@rest.operation(summary="Remove a webhook", answer=None, errors=(NotFound, Forbidden))
def remove_webhook(reference: str) -> None:
    """Remove a webhook and its history."""
    session = context().session
    session.delete(service.find(session, reference, Action.DESTROY, lock=True))
    session.flush()


@blueprint.post("/<reference>/ping")
@rest.operation(
    summary="Have a webhook told of nothing, to see that it works",
    answer=None,
    errors=(NotFound, Forbidden, Conflict),
)
def ping_webhook(reference: str) -> None:
    """Have a webhook told of nothing."""
    session = context().session
    service.ping(session, context().clock, service.find(session, reference, Action.CHANGE))


@blueprint.get("/<reference>/deliveries")
@rest.operation(
    summary="Show what a webhook was told, the newest first",
    query=rest.PagedQuery,
    answer=DeliveriesShown,
    errors=(NotFound,),
)
def show_deliveries(reference: str, query: rest.PagedQuery) -> dict[str, Any]:
    """Show what a webhook was told."""
    session = context().session
    statement = service.deliveries(service.find(session, reference))
    found = rest.page(session, statement, [WebhookDelivery.id], query, descending=True)
    shown = [
        {name: getattr(each, name) for name in DeliveryShown.model_fields if name != "id"}
        | {"id": each.message_id}
        for each in found
    ]
    return {"deliveries": shown, "next": found.next}


def _shown(webhook: Webhook) -> dict[str, Any]:
    return {
        "reference": webhook.reference,
        "project": webhook.project.reference,
        "url": webhook.url,
        "events": webhook.events,
        "created_at": webhook.created_at,
        "enabled": webhook.disabled_at is None,
        "failing_since": webhook.failing_since,
        "reason": webhook.reason,
    }


def _sender() -> Sender:
    return system_sender(context().settings.webhook_networks)


def _box() -> SecretBox:
    secret_file = context().settings.secret_file
    if secret_file is None:
        raise NotReady("this master has no secret file, which keeps the secrets of webhooks")
    return SecretBox(read_secret(secret_file), service.PURPOSE)
