"""What the doctor says of the agent: whether it runs, hears of the master, and is started."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from slapos.node.agent.unit import render
from slapos.node.assembly import make_doors
from slapos.node.doctor.agent import check_agent
from slapos.node.doctor.finding import Examined, MasterAnswer
from slapos.node.layout import Layout
from slapos.node.settings import NodeSettings
from slapos.system.finding import Finding, Level
from slapos.system.process_lock import process_lock
from tests.fakes import NOON, FakeClock


class Node:
    """A node in a folder, as the doctor sees it."""

    def __init__(self, root: Path, unit: Path | None = None) -> None:
        self.root = root
        self.unit = unit
        self.layout = Layout(root / "soft", root / "inst")

    def answered(self, before: float) -> None:
        """Have the master have answered so many seconds ago."""
        path = self.layout.last_answer
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        moment = NOON.timestamp() - before
        os.utime(path, (moment, moment))

    def findings(self) -> list[Finding]:
        settings = NodeSettings(
            computer_id="node",
            master_url="http://127.0.0.1:1/",
            software_root=self.root / "soft",
            instance_root=self.root / "inst",
        )
        examined = Examined(
            doors=replace(make_doors(settings), clock=FakeClock()),
            partitions=(),
            answer=MasterAnswer(),
            unit=self.unit,
        )
        found = list(check_agent(examined))
        assert all(one.remedy for one in found if one.level is not Level.OK)
        return found

    def told(self) -> list[tuple[Level, str]]:
        return [(one.level, one.found) for one in self.findings()]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_one_that_runs_and_is_answered_is_well(node: Node) -> None:
    node.answered(before=30.0)
    with process_lock(node.layout.agent_pidfile):
        [(level, said)] = node.told()
    assert level is Level.OK
    assert f"process {os.getpid()}" in said
    assert "answered it at" in said


def test_a_master_that_is_silent_is_warned_of_with_since_when(node: Node) -> None:
    with process_lock(node.layout.agent_pidfile):
        assert "never answered" in node.told()[0][1]
        node.answered(before=3600.0)
        [(level, said)] = node.told()
    assert level is Level.WARNING
    assert f"since {NOON.date()} {NOON.hour - 1:02}:00:00 UTC" in said


def test_where_none_has_ever_run_cron_may_do_the_work(node: Node) -> None:
    [(level, said)] = node.told()
    assert level is Level.WARNING
    assert "none has ever run" in said


def test_one_that_has_ended_is_a_problem_although_its_file_is_left(node: Node) -> None:
    with process_lock(node.layout.agent_pidfile):
        pass
    [finding] = node.findings()
    assert finding.level is Level.PROBLEM
    assert "install-service" in finding.remedy


def test_where_systemd_is_to_run_it_its_unit_is_looked_at(tmp_path: Path) -> None:
    node = Node(tmp_path, unit=tmp_path / "slapos-node.service")
    assert node.unit is not None
    with process_lock(node.layout.agent_pidfile):
        node.answered(before=1.0)
        assert node.told()[1] == (
            Level.WARNING,
            f"nothing starts it with the machine: there is no {node.unit}",
        )
        text = render("node", ["slapos", "slapos.cfg"], [tmp_path], is_user=False, formats=False)
        node.unit.write_text(text)
        assert [level for level, _ in node.told()] == [Level.OK, Level.OK]
        node.unit.write_text(text + "# mine\n")
        assert node.told()[1][0] is Level.WARNING
    ended = node.findings()[0]
    assert ended.level is Level.PROBLEM
    assert "journalctl -u slapos-node.service" in ended.remedy
