"""The table of partitions that `slapos node status` shows."""

from slapos.command.status_table import count_line, partition_lines
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
    header, first, second = partition_lines([status(), status(title="b", promises_failed=1)], 0)
    assert header.index("RELEASE") == first.index("kinto") == second.index("kinto")
    assert "1/2" in first
    assert "3 ok  " in first
    assert "3 ok, 1 failed" in second
    assert "2023-11-14T22:13:20+00:00" in first


def test_neither_title_nor_cause_moves_the_cursor_or_begins_a_line() -> None:
    [_, line] = partition_lines([status(title="evil\x1b[2J\nline", error="first\r\nsecond\x07")], 0)
    assert "evil?[2J line" in line
    assert "first second?" in line


def test_what_is_not_known_is_said_so() -> None:
    unknown = status(title=None, release="", since=0, state="unknown", running=None)
    [_, line] = partition_lines([unknown], 0)
    assert line.split() == ["slappart0", "?", "-", "unknown", "?", "3", "ok", "-", "-", "never"]


def test_what_was_used_and_the_next_try_are_shown() -> None:
    failed = status(cpu=1.234, memory=300 * 1024**2, error="no part", next_attempt=100.0)
    [_, line] = partition_lines([failed], 58.0)
    assert "  123.4%  300M  " in line
    assert line.endswith("next try in 42 s: no part")
    assert partition_lines([failed], 100.0)[1].endswith("next try now: no part")


def test_states_are_counted_what_is_wrong_first() -> None:
    states = ["started"] * 3 + ["stopped", "down", "failed", "down"]
    told = count_line([status(state=state) for state in states])
    assert told == "partitions in use: 7 (1 failed, 2 down, 3 started, 1 stopped)"
