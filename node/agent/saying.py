"""One line for each thing that happened: what came of work, said when it is news."""

import logging

from slapos.node.agent.plan import Ended, Kind
from slapos.node.outcome import Outcome, Result

logger = logging.getLogger(__name__)


class Saying:
    """Says how work ended; the same thing again is said only when it was done again."""

    def __init__(self) -> None:
        #: By what it is about: what was said last of what is not as wanted, and its level.
        self._said: dict[tuple[Kind, str], tuple[int, str]] = {}

    def take(self, ended: Ended) -> None:
        """Say what came of a job, if that is news."""
        outcome = ended.outcome
        if outcome is None:
            return
        key = ended.job.kind, ended.job.key
        before = self._said.pop(key, None)
        if outcome.result is Result.DONE:
            if text := _well(ended, outcome, was_bad=before is not None):
                logger.info("%s", text)
            return
        self._said[key] = now = _badly(ended, outcome)
        if now != before or outcome.changed:
            level, text = now
            logger.log(level, "%s", text)


def _well(ended: Ended, outcome: Outcome, *, was_bad: bool) -> str:
    """Return what is to be said of what is as wanted: nothing when it was before."""
    if ended.job.kind is Kind.PROMISE:
        return f"{outcome.subject}: its promises hold" if was_bad else ""
    if outcome.changed:
        return f"{_named(outcome)}: {_done(ended)}"
    return f"{_named(outcome)}: it is as wanted again" if was_bad else ""


def _badly(ended: Ended, outcome: Outcome) -> tuple[int, str]:
    """Return the level and the words for what is not as wanted."""
    if outcome.result is Result.PROMISE_FAILED and ended.job.early:
        return logging.INFO, f"{outcome.subject}: its promises do not hold yet: {outcome.cause}"
    if outcome.result is Result.WAITING:
        return logging.INFO, f"{_named(outcome)} waits: {outcome.cause}"
    return logging.ERROR, f"{outcome.result}: {outcome.line()}"


def _named(outcome: Outcome) -> str:
    return f"{outcome.subject} ({outcome.description})" if outcome.description else outcome.subject


def _done(ended: Ended) -> str:
    if ended.job.kind is Kind.BUILD:
        return "it is built" if ended.built else "it is removed"
    if ended.gone:
        return "it is destroyed"
    assert ended.job.partition is not None
    return f"it is {ended.job.partition.state}"
