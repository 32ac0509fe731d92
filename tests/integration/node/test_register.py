"""Joining a master, over real TLS: whom we trust, what is written, what may go wrong meanwhile."""

import configparser
import io
import json
import os
import stat
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from slapos.command.main import main
from slapos.node.enrolment.join import (
    Joined,
    JoinOrder,
    JoinRefused,
    join,
)
from slapos.node.settings import read_format_settings, read_node_settings
from slapos.protocol.errors import Conflict, InvalidConfiguration, MasterFailed, MasterUnreachable
from slapos.protocol.join_token import JoinToken
from slapos.protocol.tls import NotTrusted
from slapos.system.clock import SystemClock
from slapos.system.trust import ClockOff, WrongAuthority
from tests.fakes import FakeClock
from tests.integration.node.fake_authority import FakeAuthority, FakeCertifyingMaster, now
from tests.integration.node.fake_master import running_master


@pytest.fixture
def master() -> Iterator[FakeCertifyingMaster]:
    made = FakeCertifyingMaster()
    with running_master(made):
        yield made


def order_of(
    master: FakeCertifyingMaster,
    folder: Path,
    *,
    token: str = "",
    name: str = "edge-1",
    force: bool = False,
) -> JoinOrder:
    return JoinOrder(
        master_url=master.url,
        token=JoinToken.parse(token or master.new_token()),
        name=name,
        configuration=folder / "slapos.cfg",
        fresh="# made for a test\n[slapos]\ninstance_root = /inst\n",
        force=force,
    )


def joined(order: JoinOrder) -> Joined:
    return join(order, SystemClock())


def settings_in(folder: Path) -> dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(folder / "slapos.cfg")
    return dict(parser["slapos"])


def test_a_machine_joins_and_its_settings_say_so(
    master: FakeCertifyingMaster, tmp_path: Path
) -> None:
    made = joined(order_of(master, tmp_path))
    assert (made.reference, made.project) == ("COMP-1", "PROJ-1")
    found = settings_in(tmp_path)
    assert found["computer_id"] == "COMP-1"
    assert found["master_url"] == master.url
    assert found["instance_root"] == "/inst"
    key = Path(found["key_file"])
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert Path(found["master_ca_file"]).read_text() == master.authority.certificate
    assert stat.S_IMODE(Path(found["certificate_repository_path"]).stat().st_mode) == 0o711
    # The secret went to nobody before he was known, and is kept nowhere.
    assert [call for call, _ in master.asked_by] == ["v1/authority"] * 2 + ["v1/nodes/join"]
    assert sorted(os.listdir(tmp_path / "ssl")) == [".joining.lock", made.folder.name]


def test_all_else_in_the_settings_stays(master: FakeCertifyingMaster, tmp_path: Path) -> None:
    (tmp_path / "slapos.cfg").write_text(
        "# by hand\n[slapos]\n; mind this\nsoftware_root = /soft\nkey-file =\n  /old\n\n"
        "[slapformat]\npartition_amount = 7 \n"
    )
    (tmp_path / "slapos.cfg").chmod(0o640)
    joined(order_of(master, tmp_path))
    text = (tmp_path / "slapos.cfg").read_text()
    assert text.startswith("# by hand\n[slapos]\n; mind this\nsoftware_root = /soft\nkey-file = ")
    assert text.endswith("\n\n[slapformat]\npartition_amount = 7 \n")
    assert "/old" not in text
    assert stat.S_IMODE((tmp_path / "slapos.cfg").stat().st_mode) == 0o640


def test_a_lost_answer_is_asked_for_again_with_the_same_key(
    master: FakeCertifyingMaster, tmp_path: Path
) -> None:
    order = order_of(master, tmp_path)
    master.drops = {"v1/nodes/join"}
    with pytest.raises(MasterUnreachable):
        joined(order)
    assert not (tmp_path / "slapos.cfg").exists()
    key = (tmp_path / "ssl" / "joining.key").read_bytes()
    master.drops = set()
    made = joined(order)
    assert made.reference == "COMP-1"
    assert (made.folder / "key.pem").read_bytes() == key


def test_killed_at_the_very_end_it_is_finished_without_the_master(
    master: FakeCertifyingMaster, tmp_path: Path
) -> None:
    order = order_of(master, tmp_path)
    made = joined(order)
    waiting = tmp_path / "ssl" / "joining.key"
    waiting.write_bytes((made.folder / "key.pem").read_bytes())
    asked = len(master.asked_by)
    again = joined(order)
    assert (again.reference, again.folder) == (made.reference, made.folder)
    assert len(master.asked_by) == asked
    assert not waiting.exists()


def test_another_registration_is_given_up_only_by_force(
    master: FakeCertifyingMaster, tmp_path: Path
) -> None:
    first = joined(order_of(master, tmp_path))
    before = (tmp_path / "slapos.cfg").read_text()
    with pytest.raises(Conflict, match=r"already as COMP-1 of https://.*--force"):
        joined(order_of(master, tmp_path))
    assert (tmp_path / "slapos.cfg").read_text() == before
    second = joined(order_of(master, tmp_path, force=True))
    assert second.reference == "COMP-2"
    assert second.folder != first.folder
    assert (second.folder / "key.pem").read_bytes() != (first.folder / "key.pem").read_bytes()
    assert settings_in(tmp_path)["computer_id"] == "COMP-2"


def test_a_standalone_is_a_registration_too(master: FakeCertifyingMaster, tmp_path: Path) -> None:
    (tmp_path / "slapos.cfg").write_text(
        "[slapos]\ncomputer_id = local_computer\nmaster_url = http://127.0.0.1:4000/\n"
    )
    with pytest.raises(Conflict, match="local_computer"):
        joined(order_of(master, tmp_path))


def test_a_token_that_does_not_count_is_explained(
    master: FakeCertifyingMaster, tmp_path: Path
) -> None:
    with pytest.raises(JoinRefused, match=r"15 minutes.*'edge-2', see --name"):
        joined(order_of(master, tmp_path, name="edge-2"))
    assert not (tmp_path / "slapos.cfg").exists()


def test_nothing_is_sent_to_a_master_of_another_authority(
    master: FakeCertifyingMaster, tmp_path: Path
) -> None:
    token = JoinToken.compose("s" * 32, FakeAuthority().fingerprint).text
    with pytest.raises(WrongAuthority, match="another fingerprint"):
        joined(order_of(master, tmp_path, token=token))
    assert [call for call, _ in master.asked_by] == ["v1/authority"]


def test_an_impostor_who_shows_the_true_authority_beside_his_own_is_not_trusted(
    tmp_path: Path,
) -> None:
    truth, own = FakeAuthority(), FakeAuthority("impostor")
    impostor = FakeCertifyingMaster(
        authority=own,
        also_claimed=[truth.certificate],
        replayed=[truth.vouch([truth.certificate]), "nonsense", "AAAA"],
    )
    with running_master(impostor):
        token = JoinToken.compose("s" * 32, truth.fingerprint).text
        with pytest.raises(NotTrusted, match="could not prove who it is"):
            joined(order_of(impostor, tmp_path, token=token))
    assert [call for call, _ in impostor.asked_by] == ["v1/authority"]


def test_while_one_authority_takes_over_from_another_either_leads_to_the_master(
    tmp_path: Path,
) -> None:
    old, new = FakeAuthority("old"), FakeAuthority("new")
    # The token is of the new one already, and the server's certificate of the old one still.
    master = FakeCertifyingMaster(authority=new, served_by=old, also_claimed=[old.certificate])
    with running_master(master):
        made = joined(order_of(master, tmp_path))
        bundle = (made.folder / "authority.pem").read_text()
        assert bundle == old.certificate + new.certificate


def test_a_wrong_clock_is_said_before_the_token_is_used(
    master: FakeCertifyingMaster, tmp_path: Path
) -> None:
    clock = FakeClock(now() - timedelta(hours=2))
    with pytest.raises(ClockOff, match=r"7\d\d\d s behind the master"):
        join(order_of(master, tmp_path), clock)
    assert "v1/nodes/join" not in [call for call, _ in master.asked_by]


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "127.0.0.1", "ftp://a/"])
def test_a_node_joins_over_https_only(tmp_path: Path, url: str) -> None:
    token = JoinToken.compose("s" * 32, "0" * 64)
    order = JoinOrder(
        master_url=url, token=token, name="edge-1", configuration=tmp_path / "slapos.cfg"
    )
    with pytest.raises(InvalidConfiguration, match="https"):
        joined(order)


def test_a_master_that_is_away_is_said_to_be(tmp_path: Path) -> None:
    order = JoinOrder(
        master_url="https://127.0.0.1:1/",
        token=JoinToken.compose("s" * 32, "0" * 64),
        name="edge-1",
        configuration=tmp_path / "slapos.cfg",
    )
    with pytest.raises(MasterUnreachable, match="does not answer"):
        joined(order)


def test_a_certificate_of_somebody_else_is_not_used(
    master: FakeCertifyingMaster, tmp_path: Path
) -> None:
    master.joined = {}
    order = order_of(master, tmp_path)
    issue = master._issue
    master._issue = lambda uri, given, status=200: issue(  # type: ignore[method-assign]
        "slapos:node:COMP-9/../x", given, status
    )
    with pytest.raises(MasterFailed, match="which is no reference"):
        joined(order)
    assert not (tmp_path / "slapos.cfg").exists()


def test_the_command_says_what_to_do_next(
    master: FakeCertifyingMaster,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configuration = tmp_path / "etc" / "slapos.cfg"
    options = ["node", "register", "--master", master.url, "--cfg", str(configuration)]
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{master.new_token()}\n"))
    assert main([*options, "--token", "-", "--name", "edge-1"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"this machine is COMP-1 in PROJ-1 of {master.url}\n")
    assert f"slapos node format --cfg {configuration}" in said
    assert read_node_settings(configuration, {}).computer_id == "COMP-1"
    assert read_format_settings(configuration, {}).partition_amount == 10

    assert main([*options, "--token", master.new_token(), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "conflict"
