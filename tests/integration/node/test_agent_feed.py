"""How the agent hears of changes: from a master that speaks HTTP, one question at a time."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from slapos.node.agent.feed import FULL_INTERVAL, OLDER_INTERVAL, Feed
from slapos.node.settings import NodeSettings
from slapos.protocol.http_client import HttpClient, HttpSettings
from slapos.protocol.messages import NodeInformation, PartitionInformation
from slapos.protocol.slap_client import SlapClient
from tests.fakes import FakeClock, FakeIdentifiers
from tests.integration.node.fake_master import FakeMaster, running_master

POLL = 15.0
FEED, ALL = "v1/nodes/node/changes", "getFullComputerInformation"


@dataclass
class Listener:
    """A feed, its master, the time, and what was handed over."""

    master: FakeMaster
    settings: NodeSettings
    clock: FakeClock = field(default_factory=FakeClock)
    heard: list[NodeInformation] = field(default_factory=list)
    answers: list[None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.settings.layout.state.mkdir(parents=True, exist_ok=True)
        http = HttpSettings(base_url=self.master.url, timeout=5.0, retries=0)
        self.feed = Feed(
            SlapClient(HttpClient(http)),
            self.settings,
            self.heard.append,
            self.clock,
            FakeIdentifiers(),
            answered=lambda: self.answers.append(None),
        )

    def want(self, timestamp: str) -> None:
        self.master.partitions["p0"] = PartitionInformation(
            node="node",
            reference="p0",
            software_url="http://example.com/",
            instance_guid="guid",
            parameters={"timestamp": timestamp},
        )

    def ask(self) -> tuple[float, list[str]]:
        """Ask once; return the wait, and what was asked."""
        self.master.asked.clear()
        return self.feed.ask(), list(self.master.asked)

    @property
    def timestamps(self) -> list[str | None]:
        return [information.partitions[0].timestamp for information in self.heard]


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    settings = NodeSettings(
        computer_id="node",
        master_url="",
        software_root=tmp_path / "soft",
        instance_root=tmp_path / "inst",
        poll_interval=POLL,
    )
    with running_master() as master:
        master.longest_wait = 0.05
        made = Listener(master, settings)
        made.want("1")
        yield made


def test_a_change_comes_with_all_that_is_wanted_in_one_answer(listener: Listener) -> None:
    listener.master.has_feed = True
    assert listener.ask() == (0.0, [FEED])
    listener.want("2")
    assert listener.ask() == (0.0, [FEED])
    assert listener.timestamps == ["1", "2"]
    assert len(listener.answers) == 2


def test_a_feed_that_does_not_wait_is_not_asked_without_pause(listener: Listener) -> None:
    listener.master.has_feed = True
    listener.ask()
    assert listener.ask() == (POLL, [FEED])
    assert listener.timestamps == ["1"]


def test_whether_the_master_answers_is_seen_at_once_after_a_start_and_after_trouble(
    listener: Listener,
) -> None:
    listener.master.has_feed, listener.master.longest_wait = True, 30.0
    listener.ask()
    again = Listener(listener.master, listener.settings)
    again.feed.start_from_disk()
    assert again.ask() == (0.0, [FEED])  # nothing is new, and yet it need not wait for that
    listener.master.failures = {FEED: (500, b"no")}
    again.ask()
    listener.master.failures = {}
    assert again.ask() == (0.0, [FEED])
    assert len(again.answers) == 2


def test_a_master_without_a_feed_is_polled_and_asked_again_later(listener: Listener) -> None:
    assert listener.ask() == (POLL, [FEED, ALL])
    assert listener.ask() == (POLL, [ALL])
    listener.want("2")
    listener.ask()
    assert listener.timestamps == ["1", "2"]
    listener.clock.advance(FULL_INTERVAL)
    listener.master.has_feed = True
    assert listener.ask()[1] == [ALL, FEED]


def test_everything_is_asked_for_now_and_then_whatever_the_feed_says(listener: Listener) -> None:
    listener.master.has_feed = True
    listener.ask()
    listener.clock.advance(FULL_INTERVAL)
    assert listener.ask()[1] == [ALL, FEED]
    assert listener.ask()[1] == [FEED]


@pytest.mark.parametrize("answer", [(500, b"no"), (200, b"[1]"), (200, b'{"changed'), (403, b"")])
def test_trouble_is_said_once_and_backs_off(
    listener: Listener, answer: tuple[int, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    listener.master.has_feed = True
    listener.ask()
    listener.master.failures = {FEED: answer, ALL: answer}
    with caplog.at_level(logging.INFO):
        waits = [listener.ask()[0] for _ in range(8)]
        listener.master.failures = {}
        listener.ask()
    assert waits == sorted(waits)
    assert waits[0] >= 1.0
    assert waits[-1] == 60.0
    said = [record.message for record in caplog.records]
    assert said.count("the services on this node go on without the master") == 1
    assert said[-1] == "the master answers again"
    assert listener.timestamps == ["1"]


def test_a_node_that_the_master_does_not_know_is_trouble(listener: Listener) -> None:
    listener.master.failures = {ALL: (404, b"no such node"), FEED: (404, b"")}
    wait, _ = listener.ask()
    assert 0 < wait < POLL
    assert (listener.heard, listener.answers) == ([], [])


def test_what_was_said_last_is_there_after_a_start(listener: Listener) -> None:
    listener.ask()
    kept = listener.settings.layout.kept_information
    assert kept.stat().st_mode & 0o777 == 0o600
    again = Listener(listener.master, listener.settings)
    again.feed.start_from_disk()
    assert again.timestamps == ["1"]
    again.ask()
    assert again.timestamps == ["1"]  # nothing new

    other = Listener(listener.master, replace(listener.settings, computer_id="other"))
    other.feed.start_from_disk()
    assert other.heard == []
    kept.write_text(kept.read_text()[:-20])
    damaged = Listener(listener.master, listener.settings)
    damaged.feed.start_from_disk()
    assert damaged.heard == []


def test_an_older_state_than_before_the_start_waits_too(
    listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    listener.want("5")
    listener.ask()
    listener.want("4")
    again = Listener(listener.master, listener.settings)
    again.feed.start_from_disk()
    waits = [again.ask()[0] for _ in range(3)]
    assert waits == [OLDER_INTERVAL] * 3
    assert again.timestamps == ["5"]
    again.clock.advance(599.0)
    assert again.ask()[0] == 1.0
    again.clock.advance(1.0)
    again.ask()
    assert again.timestamps == ["5", "4"]
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert ["of p0" in warnings[0], warnings[1]] == [True, "the master's state is accepted"]


def test_an_older_state_that_was_a_mistake_is_forgotten(listener: Listener) -> None:
    listener.master.has_feed = True
    listener.want("5")
    listener.ask()
    for _ in range(2):
        listener.want("4")
        assert listener.ask()[0] == OLDER_INTERVAL
        listener.clock.advance(400.0)
        listener.want("5")
        listener.ask()
    assert listener.timestamps == ["5"]


def test_what_cannot_be_kept_is_acted_on_all_the_same(
    listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    listener.settings.layout.state.rmdir()
    assert listener.ask()[0] == POLL
    assert listener.timestamps == ["1"]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
