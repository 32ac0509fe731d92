"""Certificates and requests for them: what is read of them without a library, and with it."""

import base64
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from slapos.protocol.certificate import Certificate, parse_certificate, read_certificate
from slapos.protocol.certificate_request import (
    UnusableKey,
    fingerprint,
    key_digest,
    make_key,
    make_request,
)

PEM = trustme.CA().issue_cert("node.example").cert_chain_pems[0].bytes().decode()
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


def test_it_says_what_the_library_says(tmp_path: Path) -> None:
    authority = trustme.CA()
    ends = [datetime(year, 2, 3, 4, 5, 6, tzinfo=UTC) for year in (2030, 2049, 2050, 2999)]
    for end in ends:
        pem = authority.issue_cert("node.example", "10.0.0.1", not_after=end).cert_chain_pems[0]
        (tmp_path / "one.pem").write_bytes(b"# a comment\n" + pem.bytes())
        found, told = read_certificate(tmp_path / "one.pem"), x509.load_pem_x509_certificate
        assert found is not None
        assert found.not_after == told(pem.bytes()).not_valid_after_utc == end
        assert found.not_before == told(pem.bytes()).not_valid_before_utc


@given(st.binary(max_size=200), st.integers(0, 400))
def test_a_torn_certificate_is_none_and_nothing_breaks(noise: bytes, place: int) -> None:
    whole = ssl.PEM_cert_to_DER_cert(PEM)
    torn = whole[:place] + noise + whole[place + len(noise) :]
    for content in (torn, noise, whole[:place]):
        text = f"{ssl.PEM_HEADER}\n{base64.encodebytes(content).decode()}{ssl.PEM_FOOTER}\n"
        parse_certificate(text)  # raises nothing


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
