"""Waiting for an instance tree: when it ends, and what was counted."""

import io
from collections.abc import Callable

import pytest

from slapos.command.tree_view import LineView, LiveView
from slapos.command.tree_watch import PATIENCE, RequestedTree, Verdict, Waited, wait_for
from slapos.protocol.errors import MasterUnreachable, NotFound, NotReady
from slapos.protocol.messages import RequestedInstance
from slapos.protocol.states import InstanceState
from slapos.protocol.tree_status import InstanceStatus, Phase, TreeStatus
from tests.fakes import FakeClock

Answer = TreeStatus | Exception


class ScriptedTree:
    """Answers what was written for each second; the last answer stays."""

    pause = 1.0

    def __init__(self, clock: FakeClock, script: dict[float, Answer]) -> None:
        self._clock = clock
        self._script = script

    def read(self) -> TreeStatus:
        due = [answer for at, answer in self._script.items() if at <= self._clock.monotonic()]
        if isinstance(due[-1], Exception):
            raise due[-1]
        return due[-1]


def instance(title: str = "blog", phase: Phase = Phase.HEALTHY, **given: str) -> InstanceStatus:
    return InstanceStatus(
        guid=title,
        title=title,
        software_url="/soft/software.cfg",
        software_type="default",
        requested_state=InstanceState.STARTED,
        phase=phase,
        node="local",
        partition=f"part-{title}",
        reason=given.get("reason", ""),
        message=given.get("message", ""),
    )


def tree(*phases: Phase) -> TreeStatus:
    titles = ("blog", "database", "cache")
    instances = [instance(title, phase) for title, phase in zip(titles, phases, strict=False)]
    return TreeStatus(title="blog", instances=tuple(instances))


def waited(
    script: dict[float, Answer], *, timeout: float = 600, until_gone: bool = False
) -> Waited:
    clock = FakeClock()
    return wait_for(
        ScriptedTree(clock, script),
        LineView(io.StringIO()),
        clock,
        timeout=timeout,
        until_gone=until_gone,
    )


def test_it_ends_when_every_instance_is_healthy() -> None:
    result = waited(
        {
            0: tree(Phase.ALLOCATING),
            2: tree(Phase.BUILDING),
            12: tree(Phase.HEALTHY, Phase.INSTANTIATING),
            15: tree(Phase.HEALTHY, Phase.HEALTHY),
        }
    )
    assert result.verdict is Verdict.HEALTHY
    assert 15 <= result.seconds < 17


def test_the_time_in_each_phase_is_counted() -> None:
    result = waited({0: tree(Phase.BUILDING), 10: tree(Phase.PROMISING), 14: tree(Phase.HEALTHY)})
    assert result.timings["building"] == pytest.approx(10, abs=1.5)
    assert result.timings["promising"] == pytest.approx(4, abs=1.5)
    assert sum(result.timings.values()) == pytest.approx(result.seconds)


def test_waiting_for_an_instance_that_failed_is_a_failure() -> None:
    waiting = instance("blog", Phase.INSTANTIATING, reason="waiting")
    for phase, verdict in ((Phase.FAILED, Verdict.FAILED), (Phase.BUILDING, Verdict.TIMED_OUT)):
        both = TreeStatus(title="blog", instances=(waiting, instance("database", phase)))
        assert waited({0: both}).verdict is verdict


def test_a_failure_while_others_are_on_their_way_is_waited_out() -> None:
    """A parent fails as long as its child has published nothing."""
    result = waited(
        {
            0: tree(Phase.FAILED, Phase.BUILDING),
            PATIENCE * 3: tree(Phase.FAILED, Phase.HEALTHY),
            PATIENCE * 3 + 5: tree(Phase.HEALTHY, Phase.HEALTHY),
        }
    )
    assert result.verdict is Verdict.HEALTHY


def test_a_failure_that_stays_ends_it() -> None:
    result = waited({0: tree(Phase.BUILDING), 5: tree(Phase.FAILED)})
    assert result.verdict is Verdict.FAILED
    assert result.seconds == pytest.approx(5 + PATIENCE, abs=2)


def test_time_is_up() -> None:
    result = waited({0: tree(Phase.PROMISING)}, timeout=7)
    assert result.verdict is Verdict.TIMED_OUT
    assert result.seconds == pytest.approx(7, abs=0.01)


def test_a_silent_master_is_asked_again() -> None:
    result = waited({0: MasterUnreachable("no answer"), 3: tree(Phase.HEALTHY)})
    assert result.verdict is Verdict.HEALTHY


def test_a_master_that_stays_silent_is_not_asked_for_ever() -> None:
    result = waited({0: MasterUnreachable("no answer")}, timeout=5)
    assert (result.verdict, result.tree) == (Verdict.TIMED_OUT, None)


def test_a_destroyed_tree_is_waited_for_until_it_is_gone() -> None:
    result = waited({0: tree(Phase.DESTROYING), 4: NotFound("gone")}, until_gone=True)
    assert result.verdict is Verdict.GONE


def test_a_tree_that_vanishes_is_an_error() -> None:
    with pytest.raises(NotFound):
        waited({0: tree(Phase.BUILDING), 4: NotFound("gone")})


def requested(answer: Callable[[], RequestedInstance]) -> RequestedTree:
    return RequestedTree("blog", "/soft/software.cfg", InstanceState.STARTED, answer)


def not_ready() -> RequestedInstance:
    raise NotReady("no partition yet")


def answered(**connection: str) -> Callable[[], RequestedInstance]:
    found = RequestedInstance(
        guid="SOFTINST-1", state=InstanceState.STARTED, connection=connection, node="local"
    )
    return lambda: found


def test_a_repeated_request_tells_at_least_something() -> None:
    assert requested(not_ready).read().root.phase is Phase.ALLOCATING
    assert requested(answered()).read().root.phase is Phase.INSTANTIATING
    assert requested(answered(url="http://[::1]/")).read().healthy


def test_lines_tell_each_change_once() -> None:
    stream = io.StringIO()
    view = LineView(stream)
    for second in range(3):
        view.show(tree(Phase.BUILDING), second)
    view.show(tree(Phase.HEALTHY, Phase.BUILDING), 3)
    view.trouble("no answer", 4)
    view.trouble("no answer", 5)
    assert stream.getvalue().splitlines() == [
        "[    0.0 s] blog  building  part-blog on local",
        "[    3.0 s] blog  healthy  part-blog on local",
        "[    3.0 s] database  building  part-database on local",
        "[    4.0 s] no answer",
    ]


def test_a_line_has_the_first_line_of_what_is_said() -> None:
    stream = io.StringIO()
    said = instance(phase=Phase.FAILED, message="\n  buildout failed\nTraceback …\n")
    LineView(stream).show(TreeStatus(title="blog", instances=(said,)), 0)
    assert stream.getvalue().endswith("failed  part-blog on local  buildout failed\n")


def test_a_line_has_the_error_that_buildout_ends_with() -> None:
    said = "its buildout failed\nWhile:\n  Installing postgres.\nError: [postgres] not ready yet"
    stream = io.StringIO()
    status = instance(phase=Phase.FAILED, message=said)
    LineView(stream).show(TreeStatus(title="blog", instances=(status,)), 0)
    assert stream.getvalue().endswith("its buildout failed: [postgres] not ready yet\n")


def test_a_terminal_is_drawn_over() -> None:
    stream = io.StringIO()
    view = LiveView(stream, lambda: (40, 24))
    view.show(tree(Phase.BUILDING), 1)
    view.show(tree(Phase.BUILDING, Phase.ALLOCATING), 2)
    first, second = stream.getvalue().split("\x1b[2A")  # up over the two lines of the first
    assert "blog: 1 s\n" in first
    assert "database" in second
    assert all(len(line.rpartition("\x1b[2K")[2]) < 40 for line in second.split("\n"))


def test_a_low_terminal_shows_first_what_is_not_healthy() -> None:
    stream = io.StringIO()
    instances = [instance(f"i{number}") for number in range(9)]
    instances.append(instance("slow", Phase.BUILDING))
    LiveView(stream, lambda: (80, 7)).show(TreeStatus(title="blog", instances=tuple(instances)), 1)
    lines = stream.getvalue().split("\n")
    assert "slow" in lines[1]
    assert "and 6 more" in lines[5]
