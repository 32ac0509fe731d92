"""The unit for systemd: what is in it, and that nobody's changes are lost."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from slapos.node.agent.unit import render
from slapos.system.runner import CommandFailed
from slapos.system.systemd_unit import (
    ServiceManagerFailed,
    Unit,
    UnitRefused,
    install,
    is_untouched,
    remove,
)

COMMAND = ("/opt/py thon/bin/python", "-m", "slapos.command", "/etc/50%/$x.cfg")


def text(*, formats: bool = False, node: str = "node") -> str:
    return render(node, COMMAND, (Path("/srv/a b"),), is_user=False, formats=formats)


class Systemd:
    """Takes what is asked of systemctl, and fails with `failing`."""

    def __init__(self, failing: str = "") -> None:
        self.asked: list[str] = []
        self._failing = failing

    def __call__(self, words: Sequence[str]) -> None:
        self.asked.append(" ".join(words[1:]))
        if self._failing and self._failing in words:
            raise CommandFailed("systemctl ended with status 1", status=1, output="no bus")


@pytest.fixture
def unit(tmp_path: Path) -> Unit:
    return Unit(path=tmp_path / "made" / "slapos-node.service", text=text(), is_user=False)


def test_words_reach_the_agent_as_they_are() -> None:
    assert (
        'ExecStart="/opt/py thon/bin/python" -m slapos.command node run --cfg /etc/50%%/$$x.cfg\n'
    ) in text()
    assert 'RequiresMountsFor="/srv/a b"\n' in text()


def test_addresses_are_put_on_interfaces_before_where_there_are_some() -> None:
    assert "ExecStartPre" not in text()
    [line] = [line for line in text(formats=True).splitlines() if "ExecStartPre" in line]
    assert line.startswith("ExecStartPre=-/usr/bin/timeout 120 ")
    assert line.endswith("slapos.command node format --now --cfg /etc/50%%/$$x.cfg")


def test_only_the_agent_is_ended_never_what_it_has_started() -> None:
    assert "KillMode=process\n" in text()


def test_it_is_written_enabled_and_started_and_a_second_time_nothing_changes(unit: Unit) -> None:
    systemd = Systemd()
    assert install(unit, systemd, force=False)
    name = "slapos-node.service"
    assert systemd.asked == ["daemon-reload", f"enable {name}", f"restart {name}"]
    systemd.asked.clear()
    assert not install(unit, systemd, force=False)
    assert systemd.asked[-1] == f"start {name}"


def test_an_earlier_version_is_replaced_and_a_changed_one_is_kept(unit: Unit) -> None:
    unit.path.parent.mkdir()
    unit.path.write_text(text(node="before"))
    assert install(unit, Systemd(), force=False)
    assert is_untouched(unit.path.read_text())
    changed = unit.path.read_text() + "Nice=5\n"
    unit.path.write_text(changed)
    for work in (install, remove):
        with pytest.raises(UnitRefused, match="--force"):
            work(unit, Systemd(), force=False)
    assert unit.path.read_text() == changed
    assert install(unit, Systemd(), force=True)
    assert unit.path.read_text() == unit.text


def test_somebody_elses_unit_is_left_alone(unit: Unit) -> None:
    unit.path.parent.mkdir()
    unit.path.write_text("[Unit]\n")
    with pytest.raises(UnitRefused):
        install(unit, Systemd(), force=False)


def test_undo_ends_and_removes_it(unit: Unit) -> None:
    install(unit, Systemd(), force=False)
    systemd = Systemd()
    assert remove(unit, systemd, force=False)
    assert not unit.path.exists()
    assert systemd.asked == ["disable --now slapos-node.service", "daemon-reload"]
    assert not remove(unit, systemd, force=False)


def test_a_systemd_that_does_not_do_it_is_quoted(unit: Unit) -> None:
    with pytest.raises(ServiceManagerFailed, match="no bus"):
        install(unit, Systemd(failing="restart"), force=False)
