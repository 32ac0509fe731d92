import pytest

from slapos.node.supervise.events import ProcessEvent
from slapos.node.supervise.restarts import Restarts
from slapos.node.supervise.supervisor import Process
from tests.fakes import FakeClock

WEB = ("slappart0", "web-on-watch")


def event(
    state: str, group: str = WEB[0], name: str = WEB[1], *, expected: bool = False
) -> ProcessEvent:
    return ProcessEvent(
        event=state,
        group=group,
        name=name,
        from_state="RUNNING",
        pid=7,
        expected=expected,
        at=0.0,
    )


def process(
    state: str, group: str = WEB[0], name: str = WEB[1], *, start: int = 1, stop: int = 0
) -> Process:
    return Process(
        group=group,
        name=name,
        state=state,
        pid=0,
        start=start,
        stop=stop,
        exit_status=0,
        description="",
    )


def die_at_once(restarts: Restarts, now: float) -> None:
    for state in ("STARTING", "RUNNING", "EXITED"):
        restarts.take(event(state), now)


def test_what_ended_is_started_again_after_ever_longer_pauses() -> None:
    restarts = Restarts()
    pauses, now = [], 100.0
    die_at_once(restarts, now)
    for _ in range(9):
        assert restarts.due(now) == []
        following = restarts.next_due
        assert following is not None
        pauses.append(following - now)
        now = following
        assert restarts.due(now) == [WEB]
        die_at_once(restarts, now)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_a_service_that_dies_at_once_for_ever_is_started_about_once_a_minute() -> None:
    restarts, clock = Restarts(), FakeClock()
    starts = 0
    die_at_once(restarts, clock.monotonic())
    while (due := restarts.next_due or 0.0) < 3600:
        clock.advance(due - clock.monotonic())
        for _ in restarts.due(clock.monotonic()):
            starts += 1
            die_at_once(restarts, clock.monotonic())
    assert starts == 6 + 58


def test_one_that_ran_for_a_minute_has_a_clean_slate() -> None:
    restarts = Restarts()
    now = 0.0
    for _ in range(5):
        die_at_once(restarts, now)
        now = restarts.next_due or 0.0
        restarts.due(now)
    restarts.take(event("RUNNING"), now)
    assert restarts.due(now + 59) == []
    restarts.take(event("EXITED"), now + 60)
    assert restarts.next_due == now + 61
    assert restarts.attempts(*WEB) == 0


def test_one_that_ran_for_less_has_not() -> None:
    restarts = Restarts()
    die_at_once(restarts, 0.0)
    restarts.due(1.0)
    restarts.take(event("RUNNING"), 1.0)
    restarts.take(event("EXITED"), 60.0)
    assert restarts.next_due == 62.0


@pytest.mark.parametrize("state", ["STOPPING", "STOPPED"])
def test_what_a_person_stopped_stays_so(state: str) -> None:
    restarts = Restarts()
    die_at_once(restarts, 0.0)
    restarts.take(event(state), 0.5)
    assert restarts.next_due is None
    restarts.look([process("STOPPED", stop=1)], 60.0)
    assert restarts.due(1000.0) == []


def test_a_program_that_ended_stays_so() -> None:
    restarts = Restarts()
    restarts.take(event("EXITED", name="once", expected=True), 0.0)
    restarts.look([process("EXITED", name="once")], 60.0)
    assert restarts.next_due is None


def test_what_does_not_come_up_is_due_again_though_nothing_was_told() -> None:
    restarts = Restarts()
    restarts.take(event("EXITED"), 0.0)
    assert restarts.due(1.0) == [WEB]
    assert restarts.next_due == 3.0
    assert restarts.due(3.0) == [WEB]
    assert restarts.next_due == 7.0


def test_what_was_not_told_is_seen_by_a_look_and_started_at_once() -> None:
    restarts = Restarts()
    down = [process("EXITED"), process("STOPPED", name="once", start=0)]
    restarts.look([*down, process("RUNNING", name="other-on-watch")], 5.0)
    assert restarts.due(5.0) == [WEB, ("slappart0", "once")]


def test_a_look_does_not_hasten_what_waits() -> None:
    restarts = Restarts()
    die_at_once(restarts, 0.0)
    restarts.due(1.0)
    die_at_once(restarts, 1.0)
    restarts.look([process("EXITED")], 1.5)
    assert restarts.next_due == 3.0


def test_a_look_finds_out_what_runs_and_what_is_gone() -> None:
    restarts = Restarts()
    die_at_once(restarts, 0.0)
    restarts.take(event("EXITED", "slappart1"), 0.0)
    restarts.look([process("RUNNING")], 0.5)
    assert restarts.next_due is None
    restarts.look([process("EXITED")], 61.0)
    restarts.take(event("EXITED"), 61.0)
    assert restarts.due(1000.0) == [WEB]


def test_a_group_that_is_to_stop_is_forgotten() -> None:
    restarts = Restarts()
    restarts.take(event("EXITED"), 0.0)
    restarts.take(event("EXITED", "slappart1"), 0.0)
    restarts.forget("slappart0")
    assert restarts.due(1.0) == [("slappart1", "web-on-watch")]


def test_what_runs_costs_no_memory() -> None:
    restarts = Restarts()
    restarts.take(event("STARTING"), 0.0)
    restarts.take(event("RUNNING"), 0.0)
    restarts.look([process("RUNNING")], 1.0)
    assert not restarts._troubles
