"""Delivering what webhooks are to be told, in its order, until it is taken."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import bindparam, delete, exists, select
from sqlalchemy.orm import Session

from slapos.master.identity.secret_box import SecretBox
from slapos.master.secret_file import read_secret
from slapos.master.settings import Settings
from slapos.master.tasks.task import Apply, Done, Task, Turn, sense
from slapos.master.webhooks.model import REASON_LENGTH, DeliveryState, Webhook, WebhookDelivery
from slapos.master.webhooks.outbox import DELIVER
from slapos.master.webhooks.sending import NotSent, Sender, signature, system_sender
from slapos.master.webhooks.service import PURPOSE
from slapos.system.clock import Clock

#: The wait after a first failure, twice that after the second, and so on up to the longest.
FIRST_WAIT = timedelta(seconds=10)
LONGEST_WAIT = timedelta(hours=6)
#: How often one delivery is tried before the next has its turn.
ATTEMPTS = 12
#: Deliveries to one webhook in a turn, and seconds that they may take together.
IN_A_TURN = 20
SECONDS = 60.0
#: Webhooks that are told at the same time.
THREADS = 8
KEPT_FOR = timedelta(days=30)
PIECE = 1000
#: What says that nobody is there any more (RFC 9110).
GONE = 410

WAITING = (
    select(WebhookDelivery)
    .where(
        WebhookDelivery.webhook_id == bindparam("webhook"),
        WebhookDelivery.state == DeliveryState.WAITING,
    )
    .order_by(WebhookDelivery.id)
    .limit(bindparam("limit"))
)
#: Those with something to be told, behind the last one that was looked at.
BEHIND = (
    select(Webhook.id)
    .where(
        Webhook.id > bindparam("behind"),
        Webhook.disabled_at.is_(None),
        exists().where(
            WebhookDelivery.webhook_id == Webhook.id,
            WebhookDelivery.state == DeliveryState.WAITING,
        ),
    )
    .order_by(Webhook.id)
    .limit(bindparam("limit"))
)


@dataclass(frozen=True)
class _Message:
    """What is sent to a webhook."""

    delivery: int
    message_id: str
    body: bytes


@dataclass(frozen=True)
class _Result:
    """What came of sending it."""

    delivery: int
    at: datetime
    status: int | None
    reason: str

    @property
    def is_taken(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


@dataclass(frozen=True)
class _Batch:
    """What one webhook is told in a turn; nothing more once something was not taken."""

    webhook: int
    url: str
    secret: str
    messages: Sequence[_Message]
    results: list[_Result] = field(default_factory=list)

    def send(self, sender: Sender, clock: Clock) -> None:
        """Send one after the other."""
        end = clock.monotonic() + SECONDS
        for message in self.messages:
            if clock.monotonic() > end:
                return
            self.results.append(self._send(sender, clock, message))
            if not self.results[-1].is_taken:
                return

    def _send(self, sender: Sender, clock: Clock, message: _Message) -> _Result:
        now = clock.now()
        timestamp = int(now.timestamp())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "slapos-master",
            "Webhook-Id": message.message_id,
            "Webhook-Timestamp": str(timestamp),
            "Webhook-Signature": signature(
                self.secret, message.message_id, timestamp, message.body
            ),
        }
        try:
            status = sender.post(self.url, message.body, headers)
        except NotSent as error:
            return _Result(message.delivery, now, None, str(error)[:REASON_LENGTH])
        return _Result(message.delivery, now, status, "")


def deliver(turn: Turn, sender: Sender | None = None) -> Done:
    """Tell the webhooks of the turn's keys what waits for them; the rest of it is elsewhere."""
    session = turn.session
    if turn.keys is None:
        sought = {"behind": int(turn.resume or 0), "limit": PIECE}
        found = session.scalars(BEHIND, sought).all()
        for webhook_id in found:
            sense(session, DELIVER, str(webhook_id))
        return Done(resume=str(found[-1]) if len(found) == PIECE else "")
    batches = []
    for key in turn.keys:
        webhook = session.get(Webhook, int(key))
        if webhook is not None and _may_be_told(session, webhook, turn.clock.now()):
            batch = _batch(session, webhook, turn.settings)
            if batch.messages:
                batches.append(batch)
    if not batches:
        return Done()
    chosen = sender or system_sender(turn.settings.webhook_networks)
    return Done(elsewhere=partial(_send, batches, chosen, turn.clock, turn.settings))


def _may_be_told(session: Session, webhook: Webhook, now: datetime) -> bool:
    if webhook.disabled_at is not None:
        return False
    if webhook.next_at is not None and webhook.next_at > now:
        sense(session, DELIVER, str(webhook.id), at=webhook.next_at)
        return False
    return True


def _batch(session: Session, webhook: Webhook, settings: Settings) -> _Batch:
    waiting = session.scalars(WAITING, {"webhook": webhook.id, "limit": IN_A_TURN}).all()
    assert settings.secret_file is not None, "webhooks are the full profile's"
    box = SecretBox(read_secret(settings.secret_file), PURPOSE)
    return _Batch(
        webhook=webhook.id,
        url=webhook.url,
        secret=box.open(webhook.sealed_secret),
        messages=[_Message(each.id, each.message_id, each.body.encode()) for each in waiting],
    )


def _send(batches: Sequence[_Batch], sender: Sender, clock: Clock, settings: Settings) -> Apply:
    with ThreadPoolExecutor(min(THREADS, len(batches))) as pool:
        list(pool.map(lambda batch: batch.send(sender, clock), batches))
    return partial(_take_in, batches, clock, timedelta(days=settings.webhook_days))


def _take_in(batches: Sequence[_Batch], clock: Clock, patience: timedelta, session: Session) -> int:
    taken = 0
    for batch in sorted(batches, key=lambda each: each.webhook):
        webhook = session.get(Webhook, batch.webhook, with_for_update={"of": Webhook})
        if webhook is None:
            continue
        for result in batch.results:
            taken += _take_in_one(session, webhook, result)
        now = clock.now()
        if webhook.failing_since is not None and webhook.failing_since <= now - patience:
            webhook.disable(now, f"it has taken nothing since {webhook.failing_since:%Y-%m-%d}")
        if webhook.disabled_at is None and session.scalar(
            WAITING, {"webhook": webhook.id, "limit": 1}
        ):
            sense(session, DELIVER, str(webhook.id), at=webhook.next_at)
    return taken


def _take_in_one(session: Session, webhook: Webhook, result: _Result) -> bool:
    delivery = session.get(WebhookDelivery, result.delivery)
    if delivery is None or delivery.state != DeliveryState.WAITING:
        return False
    delivery.attempts += 1
    delivery.tried_at = result.at
    delivery.status, delivery.reason = result.status, result.reason
    if result.is_taken:
        delivery.state = DeliveryState.DELIVERED
        webhook.succeed()
        session.flush()
        return True
    wait = min(FIRST_WAIT * (1 << min(webhook.failures, 20)), LONGEST_WAIT)
    webhook.fail(result.at, result.at + wait)
    if result.status == GONE:
        webhook.disable(result.at, "it answered that it is gone (410)")
    if delivery.attempts >= ATTEMPTS:
        delivery.state = DeliveryState.FAILED
    session.flush()
    return False


def _forget(turn: Turn) -> Done:
    old = (
        select(WebhookDelivery.id)
        .where(WebhookDelivery.made_at < turn.clock.now() - KEPT_FOR)
        .order_by(WebhookDelivery.made_at)
        .limit(PIECE)
    )
    ids = turn.session.scalars(old).all()
    if ids:
        turn.session.execute(
            delete(WebhookDelivery).where(WebhookDelivery.id.in_(ids)),
            execution_options={"synchronize_session": False},
        )
    return Done(count=len(ids), resume="on" if len(ids) == PIECE else "")


TASKS = (
    Task(
        name=DELIVER,
        summary="tell webhooks what happened",
        run=deliver,
        every=timedelta(minutes=10),
        in_local=False,
        batch=20,
    ),
    Task(
        name="forget_webhook_deliveries",
        summary="forget what webhooks were told more than 30 days ago",
        run=_forget,
        every=timedelta(days=1),
        in_local=False,
    ),
)
