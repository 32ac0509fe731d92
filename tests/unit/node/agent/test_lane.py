from slapos.node.agent.lane import NEVER, Lane


def test_what_has_been_due_for_longest_begins_first_and_a_bounded_number_at_a_time() -> None:
    lane = Lane(2)
    for key, at in (("late", 3.0), ("first", 1.0), ("second", 2.0), ("future", 99.0)):
        lane.want(key, at)
    assert lane.begin(10.0) == ["first", "second"]
    assert lane.begin(10.0) == []
    assert lane.next_due == NEVER  # no worker is free
    lane.end("second")
    assert lane.begin(10.0) == ["late"]
    lane.end("first")
    assert lane.next_due == 99.0


def test_what_is_wanted_while_it_is_worked_on_is_worked_on_again_right_after() -> None:
    lane = Lane(4)
    lane.want("a", 0.0)
    assert lane.begin(0.0) == ["a"]
    lane.want("a", 1.0)
    assert lane.begin(1.0) == []
    lane.end("a", again=100.0)
    assert lane.begin(1.0) == ["a"]


def test_a_thing_is_due_once_however_often_it_is_wanted() -> None:
    lane = Lane(4)
    for at in (5.0, 3.0, 4.0):
        lane.want("a", at)
    assert lane.next_due == 3.0
    assert lane.begin(9.0) == ["a"]
    lane.end("a")
    assert lane.begin(9.0) == []
    assert not lane.has("a")


def test_what_is_forgotten_never_begins() -> None:
    lane = Lane(1)
    lane.want("idle", 0.0)
    lane.forget("idle")
    assert lane.begin(9.0) == []
    lane.want("busy", 0.0)
    lane.begin(0.0)
    lane.want("busy", 1.0)
    lane.forget("busy")
    lane.end("busy")
    assert (lane.begin(9.0), lane.is_idle, lane.has("busy")) == ([], True, False)
