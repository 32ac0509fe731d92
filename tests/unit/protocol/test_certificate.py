"""Certificates and requests for them: what is read of them without a library, and with it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cryptography import x509

from slapos.protocol.certificate import Certificate, read_certificate
from slapos.protocol.certificate_request import (
    UnusableKey,
    fingerprint,
    key_digest,
    make_key,
    make_request,
)

START = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_certificate_is_due_at_two_thirds_of_its_life_and_not_all_at_once() -> None:
    certificate = Certificate(not_before=START, not_after=START + timedelta(days=15))
    assert certificate.due() == START + timedelta(days=10)
    assert certificate.due(0.5) > certificate.due()
    assert certificate.due(1.0) < certificate.not_after - timedelta(days=4)


def test_dates_are_read_of_the_first_certificate_of_a_file(tmp_path: Path) -> None:
    authority = trustme.CA()
    path = tmp_path / "chain.pem"
    end = datetime(2031, 2, 3, 4, 5, 6, tzinfo=UTC)
    leaf = authority.issue_cert("node.example", not_after=end)
    path.write_bytes(leaf.cert_chain_pems[0].bytes() + authority.cert_pem.bytes())
    found = read_certificate(path)
    assert found is not None
    assert (found.not_after, found.uri) == (end, "")


@pytest.mark.parametrize("content", [b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_what_is_no_certificate_is_not_read(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.pem"
    path.write_bytes(content)
    assert read_certificate(path) is None
    assert read_certificate(tmp_path / "absent.pem") is None


def test_a_request_is_signed_by_its_key_and_names_who_asks() -> None:
    key = make_key()
    request = x509.load_pem_x509_csr(make_request(key, "n" * 100).encode())
    assert request.is_signature_valid
    assert request.subject.rfc4514_string() == f"CN={'n' * 64}"
    assert key_digest(key) == key_digest(key) != key_digest(make_key())


def test_what_is_no_key_is_refused_without_showing_it() -> None:
    with pytest.raises(UnusableKey) as raised:
        make_request("secret", "name")
    assert "secret" not in str(raised.value)
    with pytest.raises(UnusableKey):
        fingerprint("no certificate")
