"""The certificate authority as such: keys, requests and certificates, without a database.

Certificates are X.509 v3 (RFC 5280) on P-256. Who one is for is in a URI of its alternative names:
`slapos:node:COMP-1`, `slapos:instance:SOFTINST-3`, `slapos:person:P-2`; its common name is that
reference. Each is for clients or for servers, never for both.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from ipaddress import ip_address

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from slapos.protocol.certificate import instance_uri, node_uri, person_uri
from slapos.protocol.errors import InvalidRequest

#: How long an authority lives: longer than anything that it signs.
AUTHORITY_LIFE = timedelta(days=3650)
#: A certificate counts from so long before it is made: clocks differ.
BACKDATED = timedelta(minutes=10)
SMALLEST_RSA_KEY = 2048
_PEM, _DER = serialization.Encoding.PEM, serialization.Encoding.DER
_SPKI = serialization.PublicFormat.SubjectPublicKeyInfo


class InvalidCertificateRequest(InvalidRequest):
    """A certificate request cannot be read, its signature is wrong, or its key is weak."""

    code = "certificate_request_invalid"


class SubjectKind(StrEnum):
    """Whom a certificate is for."""

    NODE = "node"
    INSTANCE = "instance"
    PERSON = "person"
    SERVER = "server"


#: How a certificate names whom it is for.
URIS = {
    SubjectKind.NODE: node_uri,
    SubjectKind.INSTANCE: instance_uri,
    SubjectKind.PERSON: person_uri,
}


@dataclass(frozen=True)
class Authority:
    """A certificate authority: its certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def make(cls, now: datetime, name: str) -> "Authority":
        """Return a new one, signed by itself."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATED)
            .not_valid_after(now + AUTHORITY_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @classmethod
    def load(cls, certificate: str, key: str) -> "Authority":
        """Return one of two PEM texts, which are ours."""
        private = serialization.load_pem_private_key(key.encode(), None)
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        return cls(read_certificate(certificate), private)

    @property
    def key_text(self) -> str:
        """The private key (PEM)."""
        return key_text(self.key)

    def issue(
        self,
        kind: SubjectKind,
        reference: str,
        public_key: CertificatePublicKeyTypes,
        now: datetime,
        life: timedelta,
    ) -> x509.Certificate:
        """Return a certificate by which a node, an instance or a person shows who it is."""
        names = [x509.UniformResourceIdentifier(URIS[kind](reference))]
        purpose = ExtendedKeyUsageOID.CLIENT_AUTH
        return self._sign(reference, names, purpose, public_key, now, life)

    def issue_server(
        self,
        hosts: Sequence[str],
        public_key: CertificatePublicKeyTypes,
        now: datetime,
        life: timedelta,
    ) -> x509.Certificate:
        """Return the certificate of a server that is reached by some names and addresses."""
        names = [_host(host) for host in hosts]
        purpose = ExtendedKeyUsageOID.SERVER_AUTH
        return self._sign(hosts[0], names, purpose, public_key, now, life)

    def revocations(self, revoked: Sequence[tuple[int, datetime]], now: datetime) -> str:
        """Return the list of revoked certificates (CRL, PEM): serial numbers and since when."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now - BACKDATED)
            .next_update(now + timedelta(days=7))
        )
        for serial, since in revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(serial)
                .revocation_date(since)
                .build()
            )
        return builder.sign(self.key, hashes.SHA256()).public_bytes(_PEM).decode()

    def _sign(
        self,
        name: str,
        names: Sequence[x509.GeneralName],
        purpose: x509.ObjectIdentifier,
        public_key: CertificatePublicKeyTypes,
        now: datetime,
        life: timedelta,
    ) -> x509.Certificate:
        issuer = self.certificate.public_key()
        assert isinstance(issuer, ec.EllipticCurvePublicKey)
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])]))
            .issuer_name(self.certificate.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATED)
            .not_valid_after(now + life)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer), critical=False
            )
            .sign(self.key, hashes.SHA256())
        )


def read_request(text: str) -> CertificatePublicKeyTypes:
    """Return the public key of a certificate request (PKCS#10, PEM), whose signature is right.

    Nothing else is taken from it. Raises InvalidCertificateRequest.
    """
    try:
        request = x509.load_pem_x509_csr(text.encode())
        right = request.is_signature_valid
        key = request.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidCertificateRequest(
            f"this is no certificate request (PKCS#10, PEM) that can be read: {error}"
        ) from error
    if not right:
        raise InvalidCertificateRequest("the request is not signed by the key that it names")
    is_strong = (
        (isinstance(key, rsa.RSAPublicKey) and key.key_size >= SMALLEST_RSA_KEY)
        or (
            isinstance(key, ec.EllipticCurvePublicKey)
            and isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1)
        )
        or isinstance(key, ed25519.Ed25519PublicKey)
    )
    if not is_strong:
        raise InvalidCertificateRequest(
            "the key is not of a kind that is certified: an elliptic curve key on P-256 or P-384, "
            f"Ed25519, or RSA with {SMALLEST_RSA_KEY} bits and more"
        )
    return key


def read_certificate(text: str) -> x509.Certificate:
    """Return the first certificate of a PEM text. Raises InvalidRequest."""
    try:
        return x509.load_pem_x509_certificate(text.encode())
    except ValueError as error:
        raise InvalidRequest(f"this is no certificate (PEM) that can be read: {error}") from error


def certificate_text(certificate: x509.Certificate) -> str:
    """Return a certificate (PEM)."""
    return certificate.public_bytes(_PEM).decode()


def key_text(key: ec.EllipticCurvePrivateKey) -> str:
    """Return a private key (PEM)."""
    kind = serialization.PrivateFormat.PKCS8
    return key.private_bytes(_PEM, kind, serialization.NoEncryption()).decode()


def fingerprint(key: CertificatePublicKeyTypes) -> str:
    """Return the sha256 of a public key (SPKI, DER), in hex."""
    return hashlib.sha256(key.public_bytes(_DER, _SPKI)).hexdigest()


def is_issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Return whether an authority has signed a certificate."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def is_for_clients(certificate: x509.Certificate) -> bool:
    """Return whether a certificate is for those who ask, not for servers."""
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return ExtendedKeyUsageOID.CLIENT_AUTH in usage


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
