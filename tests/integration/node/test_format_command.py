"""`slapos node format` on this machine: as an ordinary user, and as root with real users."""

import json
import os
import pwd
import secrets
import stat
import subprocess
from collections.abc import Iterator

import pytest

from slapos.protocol.marshal import loads
from tests.integration.node.world import IS_ROOT, World


def posted(world: World) -> list[dict[str, object]]:
    return [
        loads(form["xml"].encode())
        for call, form in world.master.told
        if call == "loadComputerConfigurationFromXML"
    ]


def test_each_partition_gets_a_folder_and_an_address_of_its_own(world: World) -> None:
    answer = world.run("format", "--now", "--computer_json", str(world.root / "node.json"))
    assert answer.returncode == 0, answer.stdout
    [document] = posted(world)
    assert document == json.loads((world.root / "node.json").read_text())
    partitions = document["partition_list"]
    assert isinstance(partitions, list)
    assert [p["reference"] for p in partitions] == ["slappart0", "slappart1", "slappart2"]
    assert [p["address_list"][0]["addr"] for p in partitions] == [
        "127.0.200.2",
        "127.0.200.3",
        "127.0.200.4",
    ]
    resource = world.partition("slappart1") / ".slapos-resource"
    assert json.loads(resource.read_text())["address_list"][0]["addr"] == "127.0.200.3"
    assert stat.S_IMODE(resource.parent.stat().st_mode) == 0o750


def test_a_second_time_changes_nothing(world: World) -> None:
    world.run("format", "--now")
    before = {path: path.stat().st_mtime_ns for path in world.root.rglob("*")}
    assert world.run("format", "--now").returncode == 0
    assert {path: path.stat().st_mtime_ns for path in world.root.rglob("*")} == before
    assert posted(world)[0] == posted(world)[1]


def test_a_wrong_mode_is_put_right(world: World) -> None:
    world.partition().chmod(0o777)
    world.run("format", "--now")
    assert stat.S_IMODE(world.partition().stat().st_mode) == 0o750


def test_a_dry_run_changes_nothing(world: World) -> None:
    world.configure(slapformat={"partition_base_name": "other"})
    answer = world.run("format", "-n")
    assert answer.returncode == 0
    assert f"would make {world.root}/inst/other0" in answer.stdout
    assert not (world.root / "inst" / "other0").exists()
    assert posted(world) == []


def test_a_master_that_is_not_told_is_status_2(world: World) -> None:
    world.master.failures["loadComputerConfigurationFromXML"] = (500, b"")
    assert world.run("format", "--now").returncode == 2
    assert (world.partition() / ".slapos-resource").exists()


def test_a_definition_file_gives_the_addresses(world: World) -> None:
    definition = world.root / "definition.cfg"
    definition.write_text(
        "[computer]\naddress = 10.0.0.1/24\n"
        "[partition_0]\naddress = 127.0.0.1/255.255.255.255 ::1/128\npathname = part0\n"
        "network_interface = lo\n"
    )
    world.configure(slapformat={"input_definition_file": str(definition), "partition_amount": ""})
    answer = world.run("format", "--now")
    assert answer.returncode == 0, answer.stdout
    [document] = posted(world)
    assert document["partition_list"] == [
        {
            "reference": "part0",
            "path": f"{world.root}/inst/part0",
            "address_list": [
                {"addr": "127.0.0.1", "netmask": "255.255.255.255"},
                {"addr": "::1", "netmask": "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
            ],
            "ipv6_range": {},
            "tap": {"name": "lo"},
            "tun": None,
            "external_storage_list": [],
            "user": {
                "name": "slapuser0",
                "path": f"{world.root}/inst/part0",
                "shell": "/bin/sh",
                "additional_group_list": [],
            },
        }
    ]


def test_addresses_that_would_need_an_interface_are_refused_with_the_way_out(world: World) -> None:
    world.configure(slapformat={"ipv4_local_network": "10.47.0.0/16"})
    answer = world.run("format", "--now")
    assert answer.returncode == 1
    assert "ipv4_local_network to a part of 127.0.0.0/8" in answer.stdout
    assert not list(world.root.rglob(".slapos-resource"))


def test_partitions_only_grow(world: World) -> None:
    world.run("format", "--now")
    world.configure(slapformat={"partition_amount": "2"})
    answer = world.run("format", "--now")
    assert answer.returncode == 1
    assert "slappart2" in answer.stdout


@pytest.fixture
def user_prefix() -> Iterator[str]:
    prefix = f"slaptest{secrets.token_hex(4)}"
    yield prefix
    for name in (f"{prefix}p0", f"{prefix}p1", f"{prefix}soft"):
        subprocess.run(["userdel", name], check=False, capture_output=True)
        subprocess.run(["groupdel", name], check=False, capture_output=True)


@pytest.mark.root
@pytest.mark.skipif(not IS_ROOT, reason="only root makes users")
def test_root_makes_the_users_that_are_missing(world: World, user_prefix: str) -> None:
    names = {"user_base_name": f"{user_prefix}p", "software_user": f"{user_prefix}soft"}
    world.configure(slapformat={**names, "partition_base_name": "part", "partition_amount": "2"})
    answer = world.run("format", "--now", "--alter_user", "True")
    assert answer.returncode == 0, answer.stdout
    entry = pwd.getpwnam(f"{user_prefix}p0")
    status = (world.root / "inst" / "part0").stat()
    assert (status.st_uid, status.st_gid) == (entry.pw_uid, entry.pw_gid)
    assert entry.pw_dir == f"{world.root}/inst/part0"
    software = pwd.getpwnam(f"{user_prefix}soft")
    assert software.pw_gid in os.getgrouplist(entry.pw_name, entry.pw_gid)
    assert (world.root / "soft").stat().st_uid == software.pw_uid
    assert "useradd" not in world.run("format", "--now", "--alter_user", "True").stdout
