"""Which answers to requests are kept for the fast lane, and what each goes by."""

from flask import current_app, g, request

from slapos.master.http import context
from slapos.master.identity.caller import CallerKind
from slapos.master.provisioning.model import SoftwareInstance
from slapos.master.slap import form
from slapos.master.slap.asking import asking
from slapos.master.slap.fast_lane import KEY, KeptAnswer, KeptAnswers

#: Where an application has its KeptAnswers.
KEPT_ANSWERS = "slapos.kept_answers"


def nothing_to_keep() -> None:
    """Begin a request, perhaps once more, of which nothing is to be kept yet."""
    g.kept_answer = None


def to_be_kept(
    content: bytes, instance: SoftwareInstance, requester: SoftwareInstance | None
) -> None:
    """Have an answer kept, once the transaction is committed, if it may be given again."""
    if instance.shared:
        return  # it may have to leave its host, which can change without it
    if asking().is_local:
        g.kept_answer = _for_anybody(content, instance, requester)
    else:
        g.kept_answer = _for_a_machine(content, instance, requester)


def keep() -> None:
    """Keep what is to be kept: the transaction has been committed by now."""
    kept: KeptAnswer | None = g.get("kept_answer")
    key = request.environ.get(KEY)
    if kept is not None and key is not None:
        answers: KeptAnswers = current_app.extensions[KEPT_ANSWERS]
        answers.keep(key, kept)


def _for_anybody(
    content: bytes, instance: SoftwareInstance, requester: SoftwareInstance | None
) -> KeptAnswer | None:
    if requester is not None:
        state = requester.requested_state
        return KeptAnswer(content, instance.id, instance.revision, requester.id, state)
    if form.names_a_partition():
        return None  # a free one, which may not stay so
    return KeptAnswer(content, instance.id, instance.revision)


def _for_a_machine(
    content: bytes, instance: SoftwareInstance, requester: SoftwareInstance | None
) -> KeptAnswer | None:
    """Return what may be answered to the same certificate; what a person may, changes."""
    caller = context().caller
    if requester is None or caller.kind not in (CallerKind.INSTANCE, CallerKind.NODE):
        return None
    return KeptAnswer(
        content=content,
        instance=instance.id,
        revision=instance.revision,
        requester=requester.id,
        requester_state=requester.requested_state,
        requester_partition=requester.partition_id,
        caller=caller,
    )
