"""The table of partitions that `slapos node status` shows."""

from slapos.command.node_status import partition_lines
from slapos.node.overview import PartitionStatus


def status(**more: object) -> PartitionStatus:
    given: dict[str, object] = {
        "partition": "slappart0",
        "title": "blog",
        "release": "http://example.com/kinto/software.cfg",
        "state": "started",
        "running": 1,
        "processes": 2,
        "promises_kept": 3,
        "promises_failed": 0,
        "since": 1_700_000_000,
        "error": "",
        **more,
    }
    return PartitionStatus(**given)  # type: ignore[arg-type]


def test_columns_are_aligned_and_failed_promises_are_named() -> None:
    header, first, second = partition_lines([status(), status(title="b", promises_failed=1)])
    assert header.index("RELEASE") == first.index("kinto") == second.index("kinto")
    assert "1/2" in first
    assert "3 ok  " in first
    assert "3 ok, 1 failed" in second
    assert "2023-11-14T22:13:20+00:00" in first


def test_neither_title_nor_cause_moves_the_cursor_or_begins_a_line() -> None:
    [_, line] = partition_lines([status(title="evil\x1b[2J\nline", error="first\r\nsecond\x07")])
    assert "evil?[2J line" in line
    assert "first second?" in line


def test_what_is_not_known_is_said_so() -> None:
    [_, line] = partition_lines([status(title=None, release="", since=0, state="unknown")])
    assert line.split() == ["slappart0", "?", "-", "unknown", "1/2", "3", "ok", "never"]
    [nothing] = partition_lines([])
    assert "no partition is in use" in nothing
