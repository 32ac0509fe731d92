"""What the doctor's checks find, of clocks, certificates, addresses and records."""

import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from slapos.node.assembly import make_doors
from slapos.node.doctor.addresses import check_addresses, why_unusable
from slapos.node.doctor.examine import check_configuration, partition_folders
from slapos.node.doctor.finding import Check, Examined, MasterAnswer
from slapos.node.doctor.folders import check_partitions, check_roots, check_space
from slapos.node.doctor.isolation import check_firewall, check_limits
from slapos.node.doctor.master import check_certificates, check_clock, check_master
from slapos.node.doctor.records import check_instances, check_releases, check_reports
from slapos.node.doctor.supervision import check_leftovers, check_supervisord
from slapos.node.isolate.cgroup import Hierarchy, group_of
from slapos.node.isolate.confinement import Confinement, confinement_file, write_confinement
from slapos.node.isolate.firewall import Firewall
from slapos.node.isolate.isolation import Isolation
from slapos.node.isolate.limits import PartitionLimits
from slapos.node.record import PartitionRecord, ReleaseRecord, write_record
from slapos.node.settings import NodeSettings
from slapos.protocol.certificate import read_certificate
from slapos.protocol.messages import NodeInformation, PartitionInformation
from slapos.system.finding import Level
from tests.fakes import NOON, FakeClock, FakeRunner


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "soft").mkdir()
    partition = tmp_path / "inst" / "slappart0"
    partition.mkdir(parents=True)
    partition.chmod(0o750)
    if os.geteuid() == 0:
        for folder in (tmp_path / "soft", partition):
            os.chown(folder, 65534, 65534)
    return tmp_path


def examined(root: Path, answer: MasterAnswer | None = None, **settings: object) -> Examined:
    given: dict[str, object] = {
        "computer_id": "node",
        "master_url": "http://127.0.0.1:1/",
        "software_root": root / "soft",
        "instance_root": root / "inst",
        "software_min_free_space": 1,
        "instance_min_free_space": 1,
        **settings,
    }
    doors = make_doors(NodeSettings(**given))  # type: ignore[arg-type]
    return Examined(
        doors=replace(doors, clock=FakeClock()),
        partitions=partition_folders(root / "inst"),
        answer=answer or MasterAnswer(information=NodeInformation(reference="node")),
    )


def levels(check: Check, patient: Examined) -> list[Level]:
    return [finding.level for finding in check(patient)]


def told(check: Check, patient: Examined, level: Level = Level.PROBLEM) -> str:
    """What a check says of that level; each such finding also says what to do."""
    found = [finding for finding in check(patient) if finding.level is level]
    assert all(finding.remedy for finding in found)
    return "\n".join(f"{finding.found} {finding.remedy}" for finding in found)


def test_too_little_space_is_a_problem_that_names_the_setting(root: Path) -> None:
    assert Level.PROBLEM not in levels(check_space, examined(root))
    full = examined(root, instance_min_free_space=1 << 60)
    assert "instance_min_free_space" in told(check_space, full)


def test_a_root_that_is_not_there_is_a_problem(root: Path) -> None:
    assert levels(check_roots, examined(root)) == [Level.OK]
    gone = examined(root, software_root=root / "gone")
    assert "gone is no directory" in told(check_roots, gone)


def test_a_partition_of_another_mode_or_that_is_a_link_is_a_problem(root: Path) -> None:
    assert levels(check_partitions, examined(root)) == [Level.OK]
    (root / "inst/slappart0").chmod(0o755)
    (root / "inst/slappart1").symlink_to("/etc")
    said = told(check_partitions, examined(root))
    assert "mode 0755" in said
    assert "slappart1 is no directory of its own" in said


def test_a_partition_that_only_the_master_has_is_a_problem(root: Path) -> None:
    known = NodeInformation(
        reference="node",
        releases=(),
        partitions=(PartitionInformation(node="node", reference="slappart7"),),
    )
    patient = examined(root, MasterAnswer(information=known))
    assert "slappart7" in told(check_partitions, patient)


def test_an_address_that_no_interface_has_is_a_problem(root: Path) -> None:
    resource = root / "inst/slappart0/.slapos-resource"
    assert levels(check_addresses, examined(root)) == [Level.WARNING]
    resource.write_text(json.dumps({"address_list": [{"addr": "127.0.77.3"}]}))
    assert levels(check_addresses, examined(root)) == [Level.OK]
    resource.write_text(json.dumps({"address_list": [{"addr": "192.0.2.1"}]}))
    assert "no interface of this machine has it" in told(check_addresses, examined(root))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"address_list": [{"addr": "$(id)"}]}'])
def test_addresses_that_cannot_be_read_are_a_problem(root: Path, text: str) -> None:
    (root / "inst/slappart0/.slapos-resource").write_text(text)
    assert levels(check_addresses, examined(root))[0] is Level.PROBLEM


def test_a_link_is_not_followed_to_addresses(root: Path) -> None:
    (root / "secret").write_text(json.dumps({"address_list": [{"addr": "192.0.2.99"}]}))
    (root / "inst/slappart0/.slapos-resource").symlink_to(root / "secret")
    said = told(check_addresses, examined(root))
    assert "cannot be read" in said
    assert "192.0.2.99" not in said


def test_an_address_in_use_can_be_used_on_another_port() -> None:
    with socket.create_server(("127.0.0.1", 0)):
        assert why_unusable("127.0.0.1") == ""


@pytest.mark.parametrize(
    ("ahead", "level"),
    [
        (None, Level.OK),
        (0.9, Level.OK),
        (-4.0, Level.OK),
        (60.0, Level.WARNING),
        (-60.0, Level.WARNING),
    ],
)
def test_a_clock_that_is_off_is_warned_of(root: Path, ahead: float | None, level: Level) -> None:
    answer = MasterAnswer(information=NodeInformation(reference="node"), ahead=ahead)
    assert levels(check_clock, examined(root, answer)) == [level]


def test_a_master_that_does_not_answer_is_a_problem_and_a_slow_one_a_warning(root: Path) -> None:
    assert "refused" in told(check_master, examined(root, MasterAnswer(error="refused")))
    slow = MasterAnswer(information=NodeInformation(reference="node"), latency=3)
    assert "3000 ms" in told(check_master, examined(root, slow), Level.WARNING)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A key and its certificate, which is valid for ten days from now."""
    folder = tmp_path_factory.mktemp("pair")
    key, certificate = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-subj", "/CN=node", "-days", "10"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    key.chmod(0o600)
    return key, certificate


def with_certificate(root: Path, pair: tuple[Path, Path], seconds_left: float) -> Examined:
    found = read_certificate(pair[1])
    assert found is not None
    end = found.not_after.timestamp()
    patient = examined(
        root, key_file=pair[0], cert_file=pair[1], certificate_repository_path=root / "soft"
    )
    clock = FakeClock()
    clock.advance(end - seconds_left - NOON.timestamp())
    return replace(patient, doors=replace(patient.doors, clock=clock))


@pytest.mark.parametrize(
    ("days", "level"), [(40, Level.OK), (9, Level.WARNING), (-1, Level.PROBLEM)]
)
def test_a_certificate_is_told_by_its_end(
    root: Path, pair: tuple[Path, Path], days: int, level: Level
) -> None:
    patient = with_certificate(root, pair, days * 86400)
    assert levels(check_certificates, patient) == [Level.OK, level]


def test_a_key_that_others_can_read_or_that_is_another_one_is_a_problem(
    root: Path, pair: tuple[Path, Path]
) -> None:
    open_key = root / "key.pem"
    open_key.write_text("no key")
    open_key.chmod(0o644)
    said = told(check_certificates, with_certificate(root, (open_key, pair[1]), 40 * 86400))
    assert "its mode is 0644" in said
    assert "cannot be used together" in said


def test_no_certificate_is_no_problem_and_one_that_cannot_be_read_is_said(root: Path) -> None:
    assert levels(check_certificates, examined(root)) == [Level.OK]
    (root / "ca.pem").write_text("nothing")
    patient = examined(root, master_ca_file=root / "ca.pem")
    assert "cannot be read" in told(check_certificates, patient, Level.WARNING)


def test_what_failed_is_a_problem_with_its_cause_and_next_try(root: Path) -> None:
    patient = examined(root)
    assert levels(check_releases, patient) == levels(check_instances, patient) == [Level.OK]
    now, state = patient.doors.now(), patient.doors.settings.layout.state
    release = ReleaseRecord(url="http://example.com/software.cfg").failed(now, "no such egg")
    write_record(state / "software" / "0a.json", release)
    write_record(state / "instance" / "p0.json", PartitionRecord().failed(now, "bad part"))
    write_record(state / "instance" / "p1.json", PartitionRecord(promised=False))
    write_record(state / "instance" / "p2.json", PartitionRecord().came_too_early(now, "of p0"))
    said = told(check_releases, patient)
    assert "http://example.com/software.cfg: it failed (no such egg), next try in 10 s" in said
    said = told(check_instances, patient)
    assert "p0: it failed (bad part), next try in 10 s" in said
    assert "p1: a promise fails" in said
    assert "of p0" in told(check_instances, patient, Level.WARNING)


def test_a_supervisord_that_does_not_run_is_a_problem_once_it_has_work(root: Path) -> None:
    patient = examined(root)
    assert levels(check_supervisord, patient) == [Level.WARNING]
    groups = patient.doors.settings.layout.supervisor_groups
    groups.mkdir(parents=True)
    (groups / "slappart0.conf").touch()
    assert levels(check_supervisord, patient) == [Level.PROBLEM]


def test_a_socket_with_too_long_a_path_is_a_problem(root: Path) -> None:
    patient = examined(root, instance_root=root / ("x" * 110))
    assert "too long" in told(check_supervisord, patient)


def test_a_process_that_outlived_its_supervisord_is_told_and_left_alone(root: Path) -> None:
    patient = examined(root)
    url = f"unix://{patient.doors.settings.layout.supervisor_socket}"
    waiting = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"]
    process = subprocess.Popen(
        waiting,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"SUPERVISOR_SERVER_URL": url},
    )
    assert process.stdout is not None
    process.stdout.readline()
    assert f"process {process.pid} " in told(check_leftovers, patient)
    assert process.poll() is None
    process.communicate()
    assert levels(check_leftovers, patient) == [Level.OK]


def test_settings_that_cannot_be_used_are_a_problem_and_an_unknown_key_a_warning(
    tmp_path: Path,
) -> None:
    path = tmp_path / "slapos.cfg"
    assert [one.level for one in check_configuration(path)] == [Level.PROBLEM]
    path.write_text(
        "[slapos]\ncomputer_id = a\nmaster_url = http://127.0.0.1/\nsoftware_root = /s\n"
        "instance_root = /i\npromise_timeuot = 3\n"
    )
    unknown, usable = check_configuration(path)
    assert [unknown.level, usable.level] == [Level.WARNING, Level.OK]
    assert "did you mean promise_timeout?" in unknown.found


def test_limits_that_cannot_be_kept_are_warned_of(root: Path) -> None:
    patient = examined(root)
    isolation = Isolation(patient.doors.settings, (), "this machine has no cgroups")
    patient = replace(patient, doors=replace(patient.doors, isolation=isolation))
    said = told(check_limits, patient, Level.WARNING)
    assert "partition_memory, partition_cpu, partition_processes cannot be kept" in said
    assert "this machine has no cgroups" in said


def test_limits_that_are_not_in_force_are_a_problem(root: Path) -> None:
    hierarchy = Hierarchy(root, ("memory", "cpu", "pids"), is_unified=True)
    patient = examined(root)
    isolation = Isolation(patient.doors.settings, (hierarchy,))
    patient = replace(patient, doors=replace(patient.doors, isolation=isolation))
    assert levels(check_limits, patient) == [Level.OK]
    group = group_of(hierarchy, root / "inst", "slappart0", PartitionLimits(processes=9))
    layout = patient.doors.settings.layout
    write_confinement(confinement_file(layout, "slappart0"), Confinement(groups=(group,)))
    assert "slappart0: its limits are not in force" in told(check_limits, patient)
    group.folder.mkdir(parents=True)
    assert levels(check_limits, patient) == [Level.OK]


def test_a_firewall_that_is_wanted_and_not_there_is_not_well(root: Path) -> None:
    assert levels(check_firewall, examined(root)) == [Level.OK]
    patient = examined(root, firewall=True)
    present: set[str] = set()
    firewall = Firewall(
        patient.doors.settings.layout,
        FakeRunner(),
        FakeClock(),
        {},
        is_wanted=True,
        tables=lambda: present,
    )
    patient = replace(patient, doors=replace(patient.doors, firewall=firewall))
    if os.geteuid() != 0:
        assert "only root" in told(check_firewall, patient, Level.WARNING)
        return
    if shutil.which("nft", path="/usr/sbin:/sbin") is None:
        assert "install Debian's nftables" in told(check_firewall, patient)
        return
    assert "are not in force" in told(check_firewall, patient)
    present.add(firewall.table)
    assert levels(check_firewall, patient) == [Level.OK]


def test_reports_that_wait_are_told_and_warned_of_after_an_hour(root: Path) -> None:
    patient = examined(root)
    assert levels(check_reports, patient) == [Level.OK]
    journal = patient.doors.settings.layout.journal
    assert not journal.exists()
    patient.doors.reports.usage([("0" * 32, "<journal/>")])
    now = patient.doors.reports.waiting().since
    assert now is not None
    for seconds, level in ((0, Level.OK), (3599, Level.OK), (3601, Level.WARNING)):
        later = replace(patient.doors, clock=FakeClock(now + timedelta(seconds=seconds)))
        assert levels(check_reports, replace(patient, doors=later)) == [level]


def test_a_journal_that_cannot_be_written_and_what_was_put_aside_are_told(root: Path) -> None:
    patient = examined(root)
    layout = patient.doors.settings.layout
    layout.journal.mkdir(parents=True)
    assert "journal.db, cannot be used" in told(check_reports, patient)
    layout.journal.rmdir()
    (layout.state / "usage" / "refused").mkdir(parents=True)
    (layout.state / "usage" / "refused" / "0.xml").touch()
    for suffix in ("", "-wal"):
        (layout.state / f"journal.db.damaged-20260301T120000.000000Z{suffix}").touch()
    said = told(check_reports, patient, Level.WARNING)
    assert said.count("a journal that was damaged") == 1
    assert "1 documents of usage that the master refused" in said
    assert f"var/xml_report/{patient.doors.settings.computer_id}" in said
