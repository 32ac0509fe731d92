"""The settings of the node, and the traps of old that they do not have."""

from pathlib import Path
from typing import Any

import pytest

from slapos.node.isolate.limits import PartitionLimits
from slapos.node.settings import NodeSettings, read_format_settings, read_node_settings
from slapos.protocol.errors import InvalidConfiguration

NEEDED = "[slapos]\ncomputer_id = n\nmaster_url = http://m/\nsoftware_root = /s\ninstance_root=/i\n"


def settings(tmp_path: Path, text: str = "", **options: Any) -> NodeSettings:
    path = tmp_path / "slapos.cfg"
    path.write_text(NEEDED + text)
    return read_node_settings(path, options)


def test_times_from_the_file_are_numbers_and_an_option_goes_before(tmp_path: Path) -> None:
    text = "maximum_periodicity = 60\npromise_timeout = 7\n"
    found = settings(tmp_path, text)
    assert (found.maximum_periodicity, found.promise_timeout) == (60, 7)
    assert settings(tmp_path, text, promise_timeout=9.0).promise_timeout == 9


@pytest.mark.parametrize(("text", "value"), [("false", False), ("True", True), ("0", False)])
def test_false_is_false(tmp_path: Path, text: str, value: bool) -> None:
    assert settings(tmp_path, f"develop = {text}").develop is value


def test_names_in_lists_are_stripped_and_hyphens_are_underscores(tmp_path: Path) -> None:
    found = settings(tmp_path, "only-cp = a , b,\nshared_part_list =\n  /x\n  /y\n")
    assert found.only_cp == ("a", "b")
    assert found.shared_part_list == (Path("/x"), Path("/y"))


@pytest.mark.parametrize(
    ("text", "size"),
    [("1000M", 1000 * 1024**2), ("1.5 GiB", 3 * 2**29), ("12", 12), ("2 kilo", 2048)],
)
def test_sizes(tmp_path: Path, text: str, size: int) -> None:
    assert settings(tmp_path, f"software_min_free_space = {text}").software_min_free_space == size


def test_the_option_pidfile_goes_before_the_keys_of_single_commands(tmp_path: Path) -> None:
    found = settings(tmp_path, "pidfile_software = /a\n", pidfile="/b")
    assert found.lock("sr") == Path("/b")
    assert settings(tmp_path, "pidfile_software = /a").lock("sr") == Path("/a")
    assert settings(tmp_path).lock("cp") == Path("/i/var/run/slapgrid-cp.pid")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("develop = maybe", "true or false"),
        ("maximum_periodicity = often", "whole number"),
        ("partition_timeout = -1", "seconds"),
        ("software_min_free_space = much", "1000M"),
        ("partition_memory = much", "partition_memory = much .*a size such as 512M"),
        ("partition_cpu_maximum = all", "partition_cpu_maximum = all .*a number of cores"),
        ("key_file = /k", "go together"),
        ("master_ca_file = /nowhere", "is no file"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InvalidConfiguration, match=said):
        settings(tmp_path, text)


def test_limits_of_partitions_and_what_no_partition_may_go_beyond(tmp_path: Path) -> None:
    text = "partition-memory = 512M\npartition_cpu = none\npartition_open_files_maximum = 4096"
    found = settings(tmp_path, text)
    assert found.partition_limits == PartitionLimits(memory=512 * 1024**2)
    assert found.partition_maximum == PartitionLimits(open_files=4096)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "slapos.cfg"
    path.write_text("[slapos]\ncomputer_id = n\n")
    with pytest.raises(InvalidConfiguration, match="master_url is missing"):
        read_node_settings(path, {})


def test_a_misspelt_key_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings(tmp_path, "promise_timeuot = 3")
    assert "did you mean promise_timeout?" in caplog.text


def test_slapos_goes_before_slapformat(tmp_path: Path) -> None:
    path = tmp_path / "slapos.cfg"
    path.write_text(
        NEEDED + "software_user = a\n[slapformat]\nsoftware_user = b\npartition_amount = 2\n"
    )
    found = read_format_settings(path, {"alter_user": "false"})
    assert (found.software_user, found.partition_amount, found.alter_user) == ("a", 2, False)
