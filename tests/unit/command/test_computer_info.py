"""How a node is shown."""

from typing import Any

from slapos.command.computer_info import lines


def partition(reference: str, instance: dict[str, str] | None = None) -> dict[str, Any]:
    state = "busy" if instance else "free"
    return {"reference": reference, "state": state, "missing_since": None, "instance": instance}


def installation(url: str, reported: str | None, message: str = "") -> dict[str, Any]:
    state = "available"
    return {"url": url, "requested_state": state, "reported_state": reported, "message": message}


def test_a_person_sees_what_is_free_what_is_where_and_how_builds_went() -> None:
    node = {
        "reference": "COMP-1",
        "title": "rack 1",
        "contacted_at": "2026-03-01T12:00:00.250000+00:00",
        "partitions": [
            partition("slappart0", {"title": "blog", "tree": "blog"}),
            partition("slappart1", {"title": "db", "tree": "blog"}),
            partition("slappart2"),
        ],
        "installations": [
            installation("/a", "available"),
            installation("/b", "error", "one\ntwo\nthree\nError: four"),
            installation("/c", None),
        ],
    }
    assert "\n".join(lines(node)) == (
        "Computer Reference: COMP-1\n"
        "Computer Title    : rack 1\n"
        "Last contact      : 2026-03-01 12:00:00 UTC\n"
        "Partitions        : 2 busy, 1 free\n"
        "  slappart0  blog\n"
        "  slappart1  db, of blog\n"
        "Releases          : 3\n"
        "  built          /a\n"
        "  failed         /b\n"
        "    two\n"
        "    three\n"
        "    Error: four\n"
        "  not built yet  /c"
    )


def test_a_master_that_tells_only_a_title_is_enough() -> None:
    assert len(list(lines({"reference": "COMP-1", "title": "rack 1"}))) == 2
