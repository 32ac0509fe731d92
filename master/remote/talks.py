"""Asking other masters for what is on remote nodes: found, asked without a transaction, taken in.

One process at a time speaks with one other master: so that an older order never comes behind a
newer one. Who was killed on the way holds it for `LEASE`; then all of it is asked again.
"""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import bindparam, func, or_, select
from sqlalchemy.orm import Session, lazyload

from slapos.master.identity.secret_box import SecretBox
from slapos.master.nodes.exchange import ASK_OTHER_MASTERS
from slapos.master.nodes.model import RemoteNode
from slapos.master.provisioning import service as provisioning
from slapos.master.provisioning.model import SoftwareInstance
from slapos.master.provisioning.remote_title import title_elsewhere
from slapos.master.remote.asking import (
    SILENT,
    Credentials,
    Peer,
    Reach,
    Told,
    Wanted,
    ask,
    renewed,
    speaking_with,
    words_of,
)
from slapos.master.remote.model import RemoteRequest
from slapos.master.secret_file import read_secret
from slapos.master.settings import Settings
from slapos.master.tasks.task import Apply, Turn, sense
from slapos.master.text import kept_message
from slapos.protocol.errors import NotReady, SlapOSError
from slapos.protocol.states import InstanceState
from slapos.system.clock import Clock

PURPOSE = "remote nodes"
#: How many instances one other master is asked for in a turn, and the seconds after which no
#: further one is begun.
IN_A_TURN = 50
SECONDS = 10.0
#: Other masters that a process speaks with at the same time.
THREADS = 8
#: How long one process may speak with another master, and no other process: longer than a turn.
LEASE = timedelta(minutes=4)
#: The wait after a silent answer, twice that after the second, and so on up to the longest.
FIRST_WAIT = timedelta(seconds=5)
LONGEST_WAIT = timedelta(minutes=10)
#: What says the same for long is looked at more and more rarely: this part of that time.
PART = 4
SOONEST, RAREST = timedelta(seconds=1), timedelta(minutes=5)
#: The same for what is refused, until something else is asked.
RAREST_REFUSED = timedelta(hours=1)

LOCKED = (
    select(RemoteNode)
    .where(RemoteNode.node_id == bindparam("node"))
    .with_for_update(of=RemoteNode)
    .execution_options(populate_existing=True)
)
#: On the node, and not known there yet.
NEW = (
    select(SoftwareInstance)
    .outerjoin(RemoteRequest, RemoteRequest.instance_id == SoftwareInstance.id)
    .where(
        SoftwareInstance.node_id == bindparam("node"),
        SoftwareInstance.requested_state != InstanceState.DESTROYED,
        RemoteRequest.id.is_(None),
    )
    .order_by(SoftwareInstance.id)
    .limit(bindparam("limit"))
)
_WITH_IT = (SoftwareInstance.tree, SoftwareInstance.node, SoftwareInstance.partition)
#: Asked for otherwise than answered last, gone here, or to be looked at again.
_OF_NODE = (
    select(RemoteRequest, SoftwareInstance)
    .outerjoin(SoftwareInstance, SoftwareInstance.id == RemoteRequest.instance_id)
    .where(RemoteRequest.node_id == bindparam("node"))
    # Its inner join would leave out those whose instance is gone.
    .options(*(lazyload(each) for each in _WITH_IT))
)
DUE = (
    _OF_NODE.where(
        or_(
            RemoteRequest.next_at <= bindparam("now"),
            RemoteRequest.asked_for.is_distinct_from(SoftwareInstance.changed_at),
            RemoteRequest.asked_by.is_distinct_from(bindparam("revision")),
        )
    )
    .order_by(RemoteRequest.next_at, RemoteRequest.id)
    .limit(bindparam("limit"))
)
NEXT_AT = select(func.min(RemoteRequest.next_at)).where(RemoteRequest.node_id == bindparam("node"))

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Ask:
    """An instance that is asked for: what it is to be, and the timestamp of that."""

    request_id: int
    changed_at: datetime | None
    wanted: Wanted


@dataclass
class Talk:
    """What one other master is asked in a turn, and what came of it."""

    node_id: int
    lease: datetime
    revision: int
    peer: Peer
    asks: Sequence[_Ask]
    settings: Settings
    told: list[tuple[_Ask, Told]] = field(default_factory=list)
    #: Whom we are there from now on, when our certificate was renewed.
    renewed: Peer | None = None
    #: Why it was silent, from the ask on that this is about.
    error: str = ""

    def hold(self, reach: Reach, clock: Clock) -> None:
        """Ask for one after the other, until all is asked, it is silent, or time is up."""
        end = clock.monotonic() + SECONDS
        try:
            with speaking_with(self.peer, reach) as client:
                self.renewed = renewed(client, self.peer, clock.now())
                for each in self.asks:
                    if clock.monotonic() > end:
                        return
                    self.told.append((each, ask(client, self.peer, each.wanted)))
        except SILENT as error:
            self.error = kept_message(words_of(error))
        except Exception as error:  # the talks beside it are to be taken in all the same
            log.exception("speaking with %s failed", self.peer.url)
            self.error = kept_message(f"it cannot be spoken with: {error!r}")


def begin(turn: Turn, node_id: int) -> Talk | None:
    """Return what a master is to be asked now, and keep other processes from asking it."""
    session, now = turn.session, turn.clock.now()
    remote = session.scalar(LOCKED, {"node": node_id})
    if remote is None:
        return None
    if remote.asking_until is not None and now < remote.asking_until <= now + LEASE:
        return None  # whoever is at it looks for more when he is done
    if remote.next_at is not None and now < remote.next_at <= now + LONGEST_WAIT:
        sense(session, ASK_OTHER_MASTERS, str(node_id), at=remote.next_at)
        return None
    _note_new(session, remote, now)
    asks = _due(session, remote, now)
    if not asks:
        _look_again(session, remote, now)
        return None
    try:
        peer = _peer(remote, turn.settings)
    except SlapOSError as error:  # such as another secret file than the one they were sealed with
        remote.fail(now, now + LONGEST_WAIT, kept_message(f"its credentials are lost: {error}"))
        sense(session, ASK_OTHER_MASTERS, str(node_id), at=remote.next_at)
        return None
    remote.asking_until = now + LEASE
    return Talk(
        node_id=node_id,
        lease=remote.asking_until,
        revision=remote.revision,
        peer=peer,
        asks=asks,
        settings=turn.settings,
    )


def hold(talks: Sequence[Talk], reach: Reach, clock: Clock) -> Apply:
    """Ask other masters, several at a time; return what takes in their answers."""
    with ThreadPoolExecutor(min(THREADS, len(talks))) as pool:
        list(pool.map(lambda talk: talk.hold(reach, clock), talks))
    return partial(_take_in, talks, clock)


def box_of(settings: Settings) -> SecretBox:
    """Return what credentials are sealed with."""
    if settings.secret_file is None:
        raise NotReady("this master has no secret file, which keeps what it shows to other masters")
    return SecretBox(read_secret(settings.secret_file), PURPOSE)


def seal(settings: Settings, text: str) -> str:
    """Return credentials, encrypted."""
    return box_of(settings).seal(text)


def _peer(remote: RemoteNode, settings: Settings) -> Peer:
    return Peer(
        url=remote.url,
        authority=remote.authority,
        credentials=Credentials.from_json(box_of(settings).open(remote.sealed_credentials)),
        project=remote.project_reference,
        filters=remote.filters,
    )


def _note_new(session: Session, remote: RemoteNode, now: datetime) -> None:
    """Write down who is to be asked for, before it is: so that nothing there is ever forgotten."""
    sought = {"node": remote.node_id, "limit": IN_A_TURN}
    for instance in session.scalars(NEW, sought).all():
        session.add(
            RemoteRequest(
                node_id=remote.node_id,
                instance_id=instance.id,
                title=title_elsewhere(instance.tree.project.reference, instance.reference),
                shared=instance.shared,
                software_url=instance.software_url,
                software_type=instance.software_type,
                next_at=now,
                same_since=now,
            )
        )
    session.flush()


def _due(session: Session, remote: RemoteNode, now: datetime) -> Sequence[_Ask]:
    sought = {"node": remote.node_id, "now": now, "revision": remote.revision, "limit": IN_A_TURN}
    return [_ask_for(request, instance) for request, instance in session.execute(DUE, sought)]


def _ask_for(request: RemoteRequest, instance: SoftwareInstance | None) -> _Ask:
    if instance is None or instance.node_id != request.node_id:
        request.instance_id = None  # it is elsewhere now
        wanted = Wanted(
            title=request.title,
            software_url=request.software_url,
            software_type=request.software_type,
            shared=request.shared,
            state=InstanceState.DESTROYED,
        )
        return _Ask(request.id, None, wanted)
    request.software_url = instance.software_url
    request.software_type = instance.software_type
    wanted = Wanted(
        title=request.title,
        software_url=instance.software_url,
        software_type=instance.software_type,
        shared=instance.shared,
        state=InstanceState(instance.requested_state),
        parameters=instance.parameters,
    )
    return _Ask(request.id, instance.changed_at, wanted)


def _take_in(talks: Sequence[Talk], clock: Clock, session: Session) -> int:
    return sum(
        _take_in_one(session, clock, talk) for talk in sorted(talks, key=lambda each: each.node_id)
    )


def _take_in_one(session: Session, clock: Clock, talk: Talk) -> int:
    remote, now = session.scalar(LOCKED, {"node": talk.node_id}), clock.now()
    if remote is None or remote.asking_until != talk.lease:
        return 0  # it took so long that somebody else has it
    remote.asking_until = None
    # What was said to whom we were before a change says nothing of how it is after it.
    is_current = remote.revision == talk.revision
    if talk.renewed is not None and is_current:
        shown = talk.renewed.credentials
        remote.sealed_credentials = seal(talk.settings, shown.to_json())
        remote.credentials_until, remote.authority = shown.until, talk.renewed.authority
    if talk.error and is_current:
        wait = min(FIRST_WAIT * (1 << min(remote.failures, 20)), LONGEST_WAIT)
        remote.fail(now, now + wait, talk.error)
        log.warning("%s is not reached: %s", remote.node.reference, talk.error)
        if len(talk.told) < len(talk.asks):  # another one is the first, the next time
            silent = session.get(RemoteRequest, talk.asks[len(talk.told)].request_id)
            if silent is not None:
                silent.next_at = now + wait
    elif is_current:
        remote.answer(now)
    for each, told in talk.told:
        request = session.get(RemoteRequest, each.request_id)
        if request is not None:
            if each.changed_at is None and told.is_done and is_current:
                session.delete(request)
            else:
                _take_in_answer(session, clock, request, each, told, talk.revision)
    session.flush()
    _look_again(session, remote, now)
    return len(talk.told)


def _take_in_answer(
    session: Session, clock: Clock, request: RemoteRequest, asked: _Ask, told: Told, revision: int
) -> None:
    now = clock.now()
    instance = None
    if request.instance_id is not None:
        instance = session.get(SoftwareInstance, request.instance_id)
    if asked.changed_at is None and not told.is_done:
        log.warning("%s is not destroyed: %s", asked.wanted.title, told.error)
    is_new = request.asked_for != asked.changed_at or request.asked_by != revision
    request.asked_for, request.asked_by = asked.changed_at, revision
    if instance is not None and asked.changed_at is not None:
        is_new = _tell(session, clock, instance, asked, told) or is_new
    if is_new or request.same_since > now:
        request.same_since = now
    rarest = RAREST_REFUSED if told.is_refused else RAREST
    request.next_at = now + min(max((now - request.same_since) / PART, SOONEST), rarest)


def _tell(
    session: Session, clock: Clock, instance: SoftwareInstance, asked: _Ask, told: Told
) -> bool:
    """Have an instance say what another master said of it; return whether that is new."""
    if instance.is_to_go:
        return False
    is_new = False
    if told.connection is not None:
        is_new = provisioning.publish(session, clock, instance, told.connection)
    now, about, state = clock.now(), asked.changed_at, asked.wanted.state
    was = (instance.error, instance.reported_state, instance.reported_for)
    if told.error:
        error = kept_message(told.error)
        if (instance.error, instance.reported_for) != (error, about):
            instance.report_error(now, error, about)
    elif told.is_done and was != ("", state, about):
        instance.report(now, state, about)
    elif not told.is_done and was[2] == about:  # it was brought about, or failed, and is at it now
        instance.error, instance.reported_for = "", None
    return is_new or was != (instance.error, instance.reported_state, instance.reported_for)


def _look_again(session: Session, remote: RemoteNode, now: datetime) -> None:
    """Have it asked for what is left at once, or when the next is to be looked at again."""
    key = str(remote.node_id)
    if remote.next_at is not None and remote.next_at > now:
        sense(session, ASK_OTHER_MASTERS, key, at=remote.next_at)
    elif (
        _due(session, remote, now)
        or session.scalars(NEW, {"node": remote.node_id, "limit": 1}).first()
    ):
        sense(session, ASK_OTHER_MASTERS, key)
    else:
        next_at = session.scalar(NEXT_AT, {"node": remote.node_id})
        if next_at is not None:
            sense(session, ASK_OTHER_MASTERS, key, at=next_at)
