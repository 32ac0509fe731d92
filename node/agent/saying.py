"""One line for each thing that happened: what came of work, said when it is news."""

import logging

from slapos.node.agent.plan import Ended, Kind
from slapos.node.outcome import Outcome, Result

logger = logging.getLogger(__name__)


class Saying:
    """Says how work ended; the same thing again is said only when it was done again."""

    def __init__(self) -> None:
        #: By what it is about: what was said last not to be as wanted.
        self._said: dict[tuple[Kind, str], tuple[Result, str]] = {}

    def take(self, ended: Ended) -> None:
        """Say what came of a job, if that is news."""
        outcome = ended.outcome
        if outcome is None:
            return
        key = ended.job.kind, ended.job.key
        before = self._said.pop(key, None)
        if outcome.result is Result.DONE:
            self._well(ended, outcome, before is not None)
            return
        self._said[key] = now = outcome.result, outcome.cause
        if now == before and not outcome.changed:
            return
        if outcome.result is Result.WAITING:
            logger.info("%s waits: %s", _named(outcome), outcome.cause)
        else:
            logger.error("%s: %s", outcome.result, outcome.line())

    def _well(self, ended: Ended, outcome: Outcome, was_bad: bool) -> None:
        if ended.job.kind is Kind.PROMISE:
            if was_bad:
                logger.info("%s: its promises hold again", outcome.subject)
        elif outcome.changed:
            logger.info("%s: %s", _named(outcome), _done(ended))
        elif was_bad:
            logger.info("%s: it is as wanted again", _named(outcome))

    def forget(self, kind: Kind, key: str) -> None:
        """Forget what was said of something that is no more."""
        self._said.pop((kind, key), None)


def _named(outcome: Outcome) -> str:
    return f"{outcome.subject} ({outcome.description})" if outcome.description else outcome.subject


def _done(ended: Ended) -> str:
    if ended.job.kind is Kind.BUILD:
        return "it is built" if ended.built else "it is removed"
    if ended.gone:
        return "it is destroyed"
    assert ended.job.partition is not None
    return f"it is {ended.job.partition.state}"
