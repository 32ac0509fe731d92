import io
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slapos.node.supervise.watchdog import (
    BANGED,
    DEPLOYED,
    LONGEST_WAIT,
    Watchdog,
    command_line,
    is_news,
    listen,
    read_timestamp,
)
from slapos.protocol.errors import Forbidden, MasterFailed, MasterUnreachable, SlapOSError
from tests.fakes import FakeClock

EXITED = "PROCESS_STATE_EXITED"
MESSAGE = "web-on-watch process in partition slappart0 encountered a problem"


class Master:
    """Takes bangs, or answers the next ones with errors."""

    def __init__(self, *errors: SlapOSError) -> None:
        self.errors = list(errors)
        self.banged: list[tuple[str, str]] = []

    def __call__(self, partition: str, message: str) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.banged.append((partition, message))


@pytest.fixture
def partition(tmp_path: Path) -> Path:
    folder = tmp_path / "slappart0"
    folder.mkdir()
    (folder / DEPLOYED).write_text("1700000000.25")
    return folder


def process(name: str = "web-on-watch", group: str = "slappart0") -> dict[str, str]:
    return {"processname": name, "groupname": group}


def dog(partition: Path, master: Master, clock: FakeClock | None = None) -> Watchdog:
    return Watchdog(partition.parent, master, clock or FakeClock())


def waits(watchdog: Watchdog) -> bool:
    """Whether there is something to post."""
    return not watchdog._waiting.empty()


def test_a_service_that_ends_bangs_once_a_deployment(partition: Path) -> None:
    master = Master()
    watchdog = dog(partition, master)
    watchdog.take(EXITED, process())
    watchdog.take("PROCESS_STATE_FATAL", process("other-on-watch"))
    watchdog.post_next()
    assert not waits(watchdog)
    assert master.banged == [("slappart0", MESSAGE)]
    assert (partition / BANGED).read_text() == "1700000000.25"

    watchdog.take(EXITED, process())
    assert not waits(watchdog)
    (partition / DEPLOYED).write_text("1700000000.5")
    watchdog.take(EXITED, process())
    watchdog.post_next()
    assert len(master.banged) == 2


def test_a_service_that_ends_again_and_again_does_not_bang_without_pause(partition: Path) -> None:
    master, clock = Master(), FakeClock()
    watchdog = dog(partition, master, clock)

    def end_in_deployments(count: int) -> None:
        for _ in range(count):
            deployed = float((partition / DEPLOYED).read_text())
            (partition / DEPLOYED).write_text(str(deployed + 1))
            watchdog.take(EXITED, process())
            if waits(watchdog):
                watchdog.post_next()

    end_in_deployments(10)
    assert len(master.banged) == 3
    watchdog = dog(partition, master, clock)  # it was killed, and is started again
    end_in_deployments(10)
    assert len(master.banged) == 3
    clock.advance(301)
    end_in_deployments(1)
    assert len(master.banged) == 4


@pytest.mark.parametrize("text", ["", "[]", '{"slappart0": 1}', '{"slappart0": ["x"]}', "\0"])
def test_a_damaged_memory_is_none(partition: Path, text: str) -> None:
    memory = partition.parent / "var" / "slapgrid" / "bangs.json"
    memory.parent.mkdir(parents=True)
    memory.write_text(text)
    watchdog = dog(partition, Master())
    watchdog.take(EXITED, process())
    assert waits(watchdog)


@pytest.mark.parametrize(
    ("event", "name", "group"),
    [
        (EXITED, "a-task", "slappart0"),
        ("PROCESS_STATE_STARTING", "web-on-watch", "slappart0"),
        (EXITED, "web-on-watch", "no-partition"),
        (EXITED, "web-on-watch", ""),
    ],
)
def test_other_events_do_not_matter(partition: Path, event: str, name: str, group: str) -> None:
    watchdog = dog(partition, Master())
    watchdog.take(event, process(name, group))
    watchdog.take(event, {})
    assert not waits(watchdog)


def test_a_partition_that_was_never_deployed_gets_one_bang(partition: Path) -> None:
    (partition / DEPLOYED).unlink()
    watchdog = dog(partition, Master())
    watchdog.take(EXITED, process())
    watchdog.post_next()
    assert (partition / BANGED).read_text() == "0"
    watchdog.take(EXITED, process())
    assert not waits(watchdog)
    (partition / DEPLOYED).write_text("1700000000")
    watchdog.take(EXITED, process())
    assert waits(watchdog)


def test_a_master_that_is_away_gets_the_bang_later(partition: Path) -> None:
    master = Master(*[MasterUnreachable("away")] * 6, MasterFailed("500"))
    clock = FakeClock()
    watchdog = dog(partition, master, clock)
    watchdog.take(EXITED, process())
    waited = []
    while not master.banged:
        before = clock.monotonic()
        watchdog.post_next()
        waited.append(clock.monotonic() - before)
    assert waited == [1, 2, 4, 8, 16, 32, LONGEST_WAIT, 0]
    assert master.banged == [("slappart0", MESSAGE)]


def test_what_was_deployed_while_the_master_was_away_may_bang_again(partition: Path) -> None:
    master = Master(MasterUnreachable("away"))
    watchdog = dog(partition, master)
    watchdog.take(EXITED, process())
    watchdog.post_next()
    (partition / DEPLOYED).write_text("1800000000")
    watchdog.post_next()
    watchdog.take(EXITED, process())
    assert waits(watchdog)


def test_a_bang_that_is_refused_is_tried_at_the_next_event(partition: Path) -> None:
    master = Master(Forbidden("no"))
    watchdog = dog(partition, master)
    watchdog.take(EXITED, process())
    watchdog.post_next()
    assert not (partition / BANGED).exists()
    assert not waits(watchdog)
    watchdog.take(EXITED, process())
    assert waits(watchdog)


def test_a_link_that_a_user_left_is_neither_read_nor_followed(partition: Path) -> None:
    precious = partition.parent / "precious"
    precious.write_text("1900000000")
    (partition / DEPLOYED).unlink()
    (partition / DEPLOYED).symlink_to(precious)
    assert read_timestamp(partition / DEPLOYED) is None
    (partition / BANGED).symlink_to(precious)
    watchdog = dog(partition, Master())
    watchdog.take(EXITED, process())
    watchdog.post_next()
    assert precious.read_text() == "1900000000"


def test_a_pipe_in_place_of_a_file_stops_nobody(partition: Path) -> None:
    (partition / DEPLOYED).unlink()
    os.mkfifo(partition / DEPLOYED)
    assert read_timestamp(partition / DEPLOYED) is None


timestamps = st.one_of(
    st.integers(0, 2_000_000_000).map(str), st.floats(0, 2e9, allow_nan=False).map(repr)
)


@given(timestamps, timestamps)
def test_timestamps_compare_as_numbers(deployed: str, banged: str) -> None:
    assert is_news(deployed, banged) == (float(deployed) > float(banged))


@given(st.none() | st.text(), st.none() | st.text())
def test_no_timestamp_is_too_odd(deployed: str | None, banged: str | None) -> None:
    assert is_news(deployed, banged) in (True, False)
    if deployed is not None:
        assert not is_news(deployed, deployed)


PAYLOAD = b"processname:web-on-watch groupname:slappart0 from_state:RUNNING expected:0 pid:12"


def event(payload: bytes = PAYLOAD) -> bytes:
    return (
        b"ver:3.0 server:supervisor serial:21 pool:watchdog poolserial:10 "
        b"eventname:PROCESS_STATE_EXITED len:%d\n" % len(payload) + payload
    )


def test_each_event_is_taken_and_acknowledged() -> None:
    taken: list[tuple[str, Mapping[str, str]]] = []
    answers = io.BytesIO()
    listen(io.BytesIO(event() * 2), answers, lambda name, found: taken.append((name, found)))
    assert answers.getvalue() == b"READY\nRESULT 2\nOK" * 2 + b"READY\n"
    assert len(taken) == 2
    assert taken[0][0] == EXITED
    assert taken[0][1]["processname"] == "web-on-watch"
    assert taken[0][1]["groupname"] == "slappart0"


def test_what_is_no_event_is_told() -> None:
    with pytest.raises(ValueError, match="no event of supervisord"):
        listen(io.BytesIO(b"hello there\n"), io.BytesIO(), lambda *_: None)


def test_how_it_is_started() -> None:
    words = command_line(
        "python", master_url="http://m", node="C", instance_root=Path("/srv"), certificates=None
    )
    assert words == [
        "python",
        "-P",
        "-m",
        "slapos.node.supervise.watchdog",
        "--master-url=http://m",
        "--node=C",
        "--instance-root=/srv",
    ]
