"""When a master is told of promises: what changed at once, all of it every day."""

from typing import Any

import pytest

from slapos.node.instantiate.tell_promises import NEWS, REFRESH, is_news

Results = dict[str, dict[str, Any]]


def results(**told: str) -> Results:
    """Return promises: what a failing one says, "" for one that holds."""
    return {
        name: {"name": name, "failed": bool(message), "message": message or "it holds"}
        for name, message in told.items()
    }


@pytest.mark.parametrize(
    ("known", "found", "age", "told"),
    [
        (results(), results(), 0, False),
        (results(), results(), REFRESH + 1, False),
        (results(), results(a=""), 0, True),
        (results(a=""), results(a=""), 0, False),
        (results(a=""), results(a=""), REFRESH, False),
        (results(a=""), results(a=""), REFRESH + 1, True),
        (results(a=""), results(a=""), -1, True),
        (results(a=""), results(a="down"), 0, True),
        (results(a="down"), results(a=""), 0, True),
        (results(a="down"), results(a="down since 12:00"), NEWS, False),
        (results(a="down"), results(a="down since 12:00"), NEWS + 1, True),
        (results(a="down"), results(a="down"), NEWS + 1, False),
        (results(a="", b=""), results(a=""), 0, True),
    ],
)
def test_what_is_told(known: Results, found: Results, age: float, told: bool) -> None:
    assert is_news(known, found, age) is told


def test_what_a_promise_that_holds_says_is_no_news() -> None:
    found = results(a="")
    found["a"]["message"] = "12 % of the disk are used"
    assert not is_news(results(a=""), found, NEWS + 1)
