"""Which configuration is taken, and what is said when there is none."""

import argparse
from pathlib import Path

import pytest

from slapos.command.client_settings import ClientSettings, client_settings
from slapos.protocol.errors import InvalidConfiguration


def write(path: Path, **options: str) -> Path:
    lines = [f"{key} = {value}" for key, value in options.items()]
    path.write_text("\n".join(["[slapos]", *lines, ""]))
    return path


def settings_of(cfg: Path | None = None, **environment: str) -> ClientSettings:
    arguments = argparse.Namespace(cfg=str(cfg) if cfg else None)
    return client_settings(arguments, environment)


def test_an_option_goes_before_the_environment(tmp_path: Path) -> None:
    named = write(tmp_path / "a.cfg", master_url="http://a/")
    other = write(tmp_path / "b.cfg", master_url="http://b/")
    assert settings_of(named, SLAPOS_CLIENT_CONFIGURATION=str(other)).master_url == "http://a/"
    assert settings_of(SLAPOS_CLIENT_CONFIGURATION=str(other)).master_url == "http://b/"


def test_without_any_the_way_out_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("slapos.command.client_settings.ROOT_STANDALONE_DIRECTORY", str(tmp_path))
    with pytest.raises(InvalidConfiguration, match="slapos standalone start"):
        settings_of()


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match="cannot be read"):
        settings_of(tmp_path / "absent.cfg")


def test_a_master_must_be_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match="has no master_url"):
        settings_of(write(tmp_path / "a.cfg", computer_id="local"))


def test_a_certificate_needs_its_key(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match="go together"):
        settings_of(write(tmp_path / "a.cfg", master_url="https://a/", cert_file="/x"))


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    cfg = write(
        tmp_path / "a.cfg", master_url="https://a/", cert_file=str(tmp_path), key_file="/absent"
    )
    with pytest.raises(InvalidConfiguration, match="/absent"):
        settings_of(cfg)


def test_only_partitions_of_this_node_are_here(tmp_path: Path) -> None:
    (tmp_path / "slappart0").mkdir()
    cfg = write(
        tmp_path / "a.cfg", master_url="http://a", computer_id="local", instance_root=str(tmp_path)
    )
    settings = settings_of(cfg)
    assert settings.partition_directory("local", "slappart0") == tmp_path / "slappart0"
    assert settings.partition_directory("other", "slappart0") is None
    assert settings.partition_directory("local", "slappart1") is None
    assert settings.partition_directory("local", None) is None
