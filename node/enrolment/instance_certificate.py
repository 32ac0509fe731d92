"""The certificate of an instance: its key is made here, and only its user (and root) can read it.

`<partition>.key` and `<partition>.crt` are in certificate_repository_path. They go with the
instance, and another instance in the same partition never gets the key of the one before.
"""

import ssl
from datetime import datetime
from pathlib import Path

from slapos.node.doors import Doors
from slapos.node.settings import Registration
from slapos.protocol.certificate import OURS, Certificate, instance_uri, read_certificate
from slapos.protocol.enrolment_client import EnrolmentClient
from slapos.protocol.errors import MasterFailed
from slapos.protocol.messages import PartitionInformation
from slapos.system.credentials import check_issued
from slapos.system.files import write_if_changed

MODE = 0o400
KEY, CERTIFICATE = ".key", ".crt"
Owner = tuple[int, int] | None


def keep_instance_certificate(wanted: PartitionInformation, owner: Owner, doors: Doors) -> None:
    """Have a key and a valid certificate for the instance in a partition.

    The master is asked only when one is missing or due. Raises SlapOSError, OSError.
    """
    folder = doors.settings.certificate_repository_path
    if folder is None or wanted.instance_guid is None:
        return
    if not folder.is_dir():
        folder.mkdir(mode=0o711, parents=True)
    key, certificate = _files(folder, wanted.reference)
    uri = instance_uri(wanted.instance_guid)
    found = read_certificate(certificate)
    if found is not None and found.uri == uri and _fit(key, certificate):
        if doors.clock.now() < found.due():
            return
    else:
        _make_key(key, certificate, found, uri, owner)
    _ask(wanted.reference, uri, owner, doors.settings, EnrolmentClient(doors.client.http))


def renew_instance_certificate(
    partition: str, settings: Registration, client: EnrolmentClient
) -> None:
    """Replace the certificate of the instance in a partition. Raises SlapOSError, OSError."""
    folder = settings.certificate_repository_path
    if folder is None:
        return
    key, certificate = _files(folder, partition)
    found = read_certificate(certificate)
    if found is None or not key.exists():
        return  # it has gone meanwhile
    status = key.stat()
    _ask(partition, found.uri, (status.st_uid, status.st_gid), settings, client)


def instance_certificates(settings: Registration) -> dict[str, Certificate]:
    """Return the certificates that our master made for instances here, by partition."""
    folder = settings.certificate_repository_path
    if folder is None or not folder.is_dir():
        return {}
    found = {
        path.name.removesuffix(CERTIFICATE): read_certificate(path)
        for path in sorted(folder.glob(f"*{CERTIFICATE}"))
    }
    return {
        partition: certificate
        for partition, certificate in found.items()
        if certificate is not None and certificate.uri.startswith(f"{OURS}instance:")
    }


def due_partitions(settings: Registration, now: datetime, spread: float) -> list[str]:
    """Return the partitions whose certificates are to be renewed."""
    certificates = instance_certificates(settings)
    return [name for name, each in certificates.items() if each.due(spread) <= now]


def _files(folder: Path, partition: str) -> tuple[Path, Path]:
    return folder / f"{partition}{KEY}", folder / f"{partition}{CERTIFICATE}"


def _fit(key: Path, certificate: Path) -> bool:
    """Whether a key is there, and the certificate is of it."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, lambda: "")
    except (ssl.SSLError, OSError):
        return False
    return True


def _make_key(
    key: Path, certificate: Path, found: Certificate | None, uri: str, owner: Owner
) -> None:
    """Make a key for an instance, unless that was done and only its certificate is missing."""
    from slapos.protocol.certificate_request import (  # noqa: PLC0415 - some megabytes
        UnusableKey,
        key_digest,
        make_key,
    )

    if found is None and not certificate.exists():
        try:
            key_digest(key.read_text())
            return
        except (FileNotFoundError, UnusableKey, UnicodeDecodeError):
            pass
    # The key first: what is cut short here must not leave it to another instance.
    key.unlink(missing_ok=True)
    certificate.unlink(missing_ok=True)
    write_if_changed(key, make_key(), mode=MODE, owner=owner)


def _ask(
    partition: str, uri: str, owner: Owner, settings: Registration, client: EnrolmentClient
) -> None:
    from slapos.protocol.certificate_request import UnusableKey, make_request  # noqa: PLC0415

    assert settings.certificate_repository_path is not None
    key_file, certificate = _files(settings.certificate_repository_path, partition)
    key = key_file.read_text()
    try:
        request = make_request(key, uri.rpartition(":")[2])
    except UnusableKey as error:
        raise MasterFailed(f"{key_file}: {error}") from error
    issued = client.partition_certificate(settings.computer_id, partition, request)
    check_issued(issued.certificate, key, uri)
    write_if_changed(certificate, issued.certificate, mode=MODE, owner=owner)
