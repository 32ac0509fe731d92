"""`slapos configure client` against a master over real TLS, and the commands that ask it after."""

import io
import json
import os
import stat
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from slapos.command.client_settings import ClientSettings, connect
from slapos.command.main import main
from slapos.protocol.errors import InvalidConfiguration
from tests.integration.node.fake_authority import DAY, FakeAuthority, FakeCertifyingMaster
from tests.integration.node.fake_master import running_master


@pytest.fixture
def master() -> Iterator[FakeCertifyingMaster]:
    made = FakeCertifyingMaster()
    with running_master(made):
        yield made


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("sys.stdin", io.StringIO("slapos_personal\n"))
    mask = os.umask(0o022)
    os.umask(mask)
    return tmp_path / "dot-slapos" / "client.cfg"


def configure(master: FakeCertifyingMaster, path: Path, *more: str) -> int:
    trust = ["--fingerprint", master.authority.fingerprint]
    before = os.umask(0o022)
    try:
        return main(
            ["configure", "client", "--master", master.url, "--cfg", str(path)]
            + ([] if "--no-trust" in more else trust)
            + [word for word in more if word != "--no-trust"]
        )
    finally:
        os.umask(before)


def modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(p.stat().st_mode) for p in folder.rglob("*") if p.is_file()}


def test_a_person_gets_a_certificate_for_a_token_and_asks_by_it(
    master: FakeCertifyingMaster, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert configure(master, path, "--token", "-", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    settings = ClientSettings.read(path)
    assert str(settings.certificate_file) == said["cert_file"]
    assert settings.authority_file is not None
    assert settings.authority_file.read_text() == master.authority.certificate
    assert modes(path.parent) <= {0o600, 0o644}
    assert stat.S_IMODE(settings.key_file.stat().st_mode) == 0o600  # type: ignore[union-attr]
    master.personal_token = "revoked"
    connect(settings).node_information("node")
    assert master.asked_by[-1] == ("getFullComputerInformation", "slapos:person:P-2")
    assert all("slapos_personal" not in p.read_text() for p in path.parent.rglob("*.*"))


def test_a_token_is_kept_when_that_is_asked_for(master: FakeCertifyingMaster, path: Path) -> None:
    assert configure(master, path, "--bearer", "--token", "-") == 0
    settings = ClientSettings.read(path)
    assert settings.certificate_file is None
    connect(settings).node_information("node")
    assert master.asked_by[-1] == ("getFullComputerInformation", "slapos:person:P-2")
    assert settings.token_file is not None
    assert stat.S_IMODE(settings.token_file.stat().st_mode) == 0o600
    settings.token_file.chmod(0o644)
    with pytest.raises(InvalidConfiguration, match="can be read by others"):
        connect(settings)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--fingerprint", "0" * 64], "another fingerprint"),
        (["--fingerprint", "0" * 31], "64 hexadecimal digits"),
        (["--no-trust"], "give --fingerprint"),
        (["--token", "wrong"], "who are you"),
    ],
)
def test_what_is_refused_writes_nothing_and_sends_no_token_to_strangers(
    master: FakeCertifyingMaster,
    path: Path,
    options: list[str],
    says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = options if "--token" in options else [*options, "--token", "-"]
    assert configure(master, path, *words) == 1
    assert says in capsys.readouterr().err
    assert not path.exists()
    assert "slapos:person:P-2" not in {who for _, who in master.asked_by}


def test_another_master_is_replaced_only_by_force(
    master: FakeCertifyingMaster, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path.parent.mkdir()
    path.write_text("[slapos]\nmaster_url = https://other.example/\nkey_file = /o\n[mine]\na = 1\n")
    assert configure(master, path, "--token", "-") == 1
    assert "https://other.example/: to replace that, use --force" in capsys.readouterr().err
    assert configure(master, path, "--token", "slapos_personal", "--force") == 0
    assert "[mine]\na = 1\n" in path.read_text()
    assert "/o\n" not in path.read_text()


def test_the_certificate_of_a_person_is_renewed_while_it_is_used(
    master: FakeCertifyingMaster, path: Path
) -> None:
    master.age = 10 * DAY
    assert configure(master, path, "--token", "-") == 0
    master.age = timedelta()
    connect(ClientSettings.read(path))
    assert master.asked_by[-1] == ("v1/certificates/renewals", "slapos:person:P-2")
    asked = len(master.asked_by)
    connect(ClientSettings.read(path))
    assert len(master.asked_by) == asked


def test_a_master_on_this_machine_needs_no_token(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["configure", "client", "--cfg", str(path), "--master"]
    assert main([*words, "http://127.0.0.1:4000"]) == 0
    assert ClientSettings.read(path).master_url == "http://127.0.0.1:4000"
    assert main([*words, "http://master.example", "--force", "--token", "x"]) == 1
    assert "over https only" in capsys.readouterr().err


def test_a_master_is_trusted_by_an_authority_that_is_named(
    master: FakeCertifyingMaster, path: Path, tmp_path: Path
) -> None:
    authority = tmp_path / "authority.pem"
    authority.write_text(master.authority.certificate)
    named = ("--no-trust", "--token", "-", "--master-ca-file", str(authority))
    assert configure(master, path, *named) == 0
    assert ClientSettings.read(path).authority_file == authority
    authority.write_text(FakeAuthority().certificate)
    assert configure(master, path, *named[:2], "slapos_personal", *named[3:]) == 1
