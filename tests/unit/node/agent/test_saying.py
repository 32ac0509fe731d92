"""What the agent's log says: what is news, once."""

import logging

import pytest

from slapos.node.agent.plan import Ended, Job, Kind
from slapos.node.agent.saying import Saying
from slapos.node.outcome import Outcome, Result
from slapos.protocol.messages import PartitionInformation
from slapos.protocol.states import InstanceState

PARTITION = PartitionInformation(node="node", reference="p0", state=InstanceState.STARTED)


@pytest.fixture
def saying(caplog: pytest.LogCaptureFixture) -> Saying:
    caplog.set_level(logging.INFO)
    return Saying()


def ended(
    kind: Kind = Kind.INSTANCE,
    result: Result = Result.DONE,
    cause: str = "",
    *,
    changed: bool = False,
    early: bool = False,
) -> Ended:
    job = Job(kind=kind, key="p0", partition=PARTITION, early=early)
    outcome = Outcome(subject="p0", result=result, cause=cause, changed=changed)
    return Ended(job=job, outcome=outcome)


def test_nothing_is_said_of_what_is_as_it_was(
    saying: Saying, caplog: pytest.LogCaptureFixture
) -> None:
    for kind in (Kind.INSTANCE, Kind.PROMISE, Kind.USAGE, Kind.FIREWALL):
        saying.take(ended(kind))
    assert caplog.messages == []


def test_a_failure_is_said_each_time_it_was_tried_and_its_end_once(
    saying: Saying, caplog: pytest.LogCaptureFixture
) -> None:
    for changed in (True, False, False, True):
        saying.take(ended(result=Result.FAILED, cause="no", changed=changed))
    saying.take(ended(changed=True))
    saying.take(ended())
    assert caplog.messages == ["failed: p0: no", "failed: p0: no", "p0: it is started"]


def test_a_service_that_is_starting_is_no_error_yet(
    saying: Saying, caplog: pytest.LogCaptureFixture
) -> None:
    for early in (True, True, False, False):
        saying.take(ended(Kind.PROMISE, Result.PROMISE_FAILED, "refused", early=early))
    saying.take(ended(Kind.PROMISE))
    said = [(record.levelname, record.message) for record in caplog.records]
    assert said == [
        ("INFO", "p0: its promises do not hold yet: refused"),
        ("ERROR", "promise failed: p0: refused"),
        ("INFO", "p0: its promises hold"),
    ]
