import logging
import re
from pathlib import Path

from slapos.node.promise.log import (
    REMEMBERED_CHARACTERS,
    REMEMBERED_LINES,
    ROTATED_SIZE,
    RUN_SIZE,
    RunLog,
    rotate,
    transaction_of,
)
from tests.fakes import NOON


def logger(path: Path | None) -> tuple[logging.Logger, RunLog]:
    run_log = RunLog(path, "1700000000-123")
    found = logging.Logger("port")
    found.addHandler(run_log)
    return found, run_log


def test_a_line_has_the_format_that_others_parse(tmp_path: Path) -> None:
    found, _ = logger(tmp_path / "port.log")
    found.error("%s is down", "it")
    text = (tmp_path / "port.log").read_text()
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d - ERROR - 1700000000-123 - it is down\n", text
    )


def test_the_mark_of_a_run_is_its_second_and_three_digits() -> None:
    assert re.fullmatch(rf"{int(NOON.timestamp())}-\d\d\d", transaction_of(NOON))


def test_a_mistake_in_a_format_does_not_hide_the_message(tmp_path: Path) -> None:
    found, run_log = logger(None)
    found.error("%d files", "many")
    [line] = run_log.run(0).lines
    assert "many" in line.message
    assert "files" in line.message


def test_one_run_cannot_fill_the_disk_nor_memory(tmp_path: Path) -> None:
    path = tmp_path / "port.log"
    found, run_log = logger(path)
    found.error("the cause")
    for _ in range(300):
        found.info("x" * 10_000)
    assert path.stat().st_size < 2 * RUN_SIZE
    assert path.read_text().endswith("more was logged in this run than is kept\n")
    run = run_log.run(0)
    assert run.failed
    assert run.lines[0].message == "the cause"
    assert len(run.lines) == REMEMBERED_LINES
    assert max(len(line.message) for line in run.lines) == REMEMBERED_CHARACTERS


def test_a_log_that_cannot_be_written_does_not_stop_the_promise(tmp_path: Path) -> None:
    found, run_log = logger(tmp_path)  # a folder
    found.error("down")
    found.error("still")
    assert [line.message for line in run_log.run(0).lines] == ["down", "still"]


def test_a_large_log_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "port.log"
    rotate(path)
    path.write_text("x" * (ROTATED_SIZE + 1))
    rotate(path)
    assert not path.exists()
    path.write_text("small")
    rotate(path)
    assert path.read_text() == "small"
    assert (tmp_path / "port.log.1").stat().st_size == ROTATED_SIZE + 1
