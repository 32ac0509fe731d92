"""What the doctor says of certificates that are renewed in time, or are not."""

from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from slapos.node.doctor.finding import Examined
from slapos.node.doctor.master import check_certificates
from slapos.protocol.certificate import read_certificate
from slapos.system.finding import Finding, Level
from tests.fakes import NOON, FakeClock
from tests.integration.node.fake_authority import PEM, FakeAuthority
from tests.unit.node.doctor.test_doctor_checks import examined


def write_pair(folder: Path, uri: str, name: str) -> tuple[Path, Path]:
    """Write a key and a certificate that is valid for 14 days."""
    private = ec.generate_private_key(ec.SECP256R1())
    made = FakeAuthority().sign(private.public_key(), "node", x509.UniformResourceIdentifier(uri))
    key, certificate = folder / f"{name}.key", folder / f"{name}.crt"
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    key.write_bytes(private.private_bytes(PEM, form, plain))
    key.chmod(0o600)
    certificate.write_bytes(made.public_bytes(PEM))
    return key, certificate


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("soft", "inst", "partitions"):
        (tmp_path / name).mkdir()
    return tmp_path


def patient_of(root: Path, days_left: float) -> Examined:
    key, certificate = write_pair(root, "slapos:node:node", "node")
    found = read_certificate(certificate)
    assert found is not None
    patient = examined(
        root,
        master_url="https://127.0.0.1:1/",
        key_file=key,
        cert_file=certificate,
        certificate_repository_path=root / "partitions",
    )
    clock = FakeClock()
    clock.advance(found.not_after.timestamp() - days_left * 86400 - NOON.timestamp())
    return replace(patient, doors=replace(patient.doors, clock=clock))


def findings(patient: Examined) -> list[Finding]:
    return list(check_certificates(patient))


@pytest.mark.parametrize(
    ("days_left", "level", "says"),
    [
        (12.0, Level.OK, "and renewed from"),
        (4.5, Level.OK, "and renewed from"),
        (2.0, Level.WARNING, "was to be renewed on"),
        (-1.0, Level.PROBLEM, "has expired on"),
    ],
)
def test_of_one_that_is_renewed_it_is_told_whether_that_is_late(
    root: Path, days_left: float, level: Level, says: str
) -> None:
    found = findings(patient_of(root, days_left))
    assert [finding.level for finding in found] == [Level.OK, level]
    assert says in found[-1].found
    assert level is Level.OK or "slapos node register --force" in found[-1].remedy


def test_of_instances_the_certificate_that_ends_first_is_told(root: Path) -> None:
    write_pair(root / "partitions", "slapos:instance:SOFTINST-3", "slappart0")
    write_pair(root / "partitions", "slapos:instance:SOFTINST-4", "slappart1")
    (root / "partitions" / "slappart2.crt").write_text("CERTIFICATE of another make")
    (found,) = findings(patient_of(root, 12.0))[2:]
    assert found.level is Level.OK
    assert "of 2 certificates of instances the first to end, that of slappart" in found.found
    (late,) = findings(patient_of(root, -1.0))[2:]
    assert late.level is Level.PROBLEM
