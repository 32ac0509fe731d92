"""What the node remembers."""

from pathlib import Path

import pytest

from slapos.node.record import PartitionRecord, ReleaseRecord, read_record, write_record


def test_failures_wait_twice_as_long_each_time_and_an_hour_at_most() -> None:
    record, waits = ReleaseRecord(), []
    for _ in range(12):
        record = record.failed(0, "no")
        waits.append(record.waits(0))
    assert waits[:4] == [10, 20, 40, 80]
    assert waits[-1] == 3600
    assert record.succeeded().waits(0) == 0


def test_what_only_came_too_early_is_soon_tried_again() -> None:
    record, waits = PartitionRecord().failed(0, "no"), []
    for _ in range(6):
        record = record.came_too_early(0, "waiting for database: not ready yet")
        waits.append(record.waits(0))
    assert waits == [2, 4, 8, 16, 30, 30]
    assert record.failed(0, "no").waits(0) == 10


def test_a_clock_set_back_does_not_make_anything_wait_for_years() -> None:
    assert ReleaseRecord().failed(1e9, "no").waits(0) == 3600


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "instance" / "p0.json"
    record = PartitionRecord(attempted="1", promised=False).failed(5, "cause")
    write_record(path, record)
    assert read_record(PartitionRecord, path) == record


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"a"', '{"failures": 1}'])
def test_a_damaged_record_is_none_and_a_partial_one_counts(tmp_path: Path, text: str) -> None:
    path = tmp_path / "p0.json"
    path.write_text(text)
    record = read_record(PartitionRecord, path)
    assert record == PartitionRecord(failures=1 if "failures" in text else 0)


def test_what_failed_together_is_not_tried_again_together() -> None:
    waits = [ReleaseRecord().failed(0, "no", chance).waits(0) for chance in (0.0, 0.5, 1.0)]
    assert waits == [8.0, 10.0, 12.0]
