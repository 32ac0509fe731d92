"""Private keys, and the requests by which an authority makes a certificate for one.

Keys are elliptic curve keys on P-256, which every TLS library knows; they are made where they are
used, and never sent. All texts are PEM.
"""

import base64
import hashlib
from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.x509.oid import NameOID

from slapos.protocol.certificate import OURS
from slapos.protocol.errors import InvalidRequest

#: The longest name that a certificate can carry.
NAME_LENGTH = 64
_DER, _PEM = serialization.Encoding.DER, serialization.Encoding.PEM
_SPKI = serialization.PublicFormat.SubjectPublicKeyInfo


class UnusableKey(InvalidRequest):
    """A text is no private key of a kind that we use, or no certificate."""

    code = "unusable_key"


def make_key() -> str:
    """Return a new private key."""
    key = ec.generate_private_key(ec.SECP256R1())
    kind = serialization.PrivateFormat.PKCS8
    return key.private_bytes(_PEM, kind, serialization.NoEncryption()).decode()


def make_request(key: str, name: str) -> str:
    """Return a certificate request, signed by `key`. Raises UnusableKey.

    Who the certificate is for is decided by the authority; the name is only for people.
    """
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:NAME_LENGTH] or "slapos")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return builder.sign(_private(key), hashes.SHA256()).public_bytes(_PEM).decode()


def key_digest(key: str) -> str:
    """Return the fingerprint of a private key's public half. Raises UnusableKey."""
    return _digest(_private(key).public_key())


def fingerprint(certificate: str) -> str:
    """Return the sha256 of a certificate's public key (SPKI, DER), in hex. Raises UnusableKey."""
    return fingerprints(certificate)[0]


def fingerprints(certificates: str) -> list[str]:
    """Return the fingerprints of all certificates in a text. Raises UnusableKey."""
    return [_digest(each.public_key()) for each in _certificates(certificates)]


def subject_uri(certificate: str) -> str:
    """Return whom a certificate speaks of, by its URI; empty where it has none of ours."""
    names = x509.SubjectAlternativeName
    try:
        found = _certificates(certificate)[0].extensions.get_extension_for_class(names).value
    except (x509.ExtensionNotFound, ValueError):
        return ""
    uris = found.get_values_for_type(x509.UniformResourceIdentifier)
    return next((uri for uri in uris if uri.startswith(OURS)), "")


def vouching(certificates: Sequence[str]) -> bytes:
    """Return what each of a master's authorities signs, to say that they are all that there are.

    So whoever knows one of them knows all: while one takes over from another, the master's own
    certificate may be of either. What is signed can be taken for no certificate.
    """
    return b"slapos authorities\n" + b"".join(_ders(certificates))


def vouch(key: str, certificates: Sequence[str]) -> str:
    """Return the signature (base64) with an authority's key over all authorities."""
    signed = _private(key).sign(vouching(certificates), ec.ECDSA(hashes.SHA256()))
    return base64.b64encode(signed).decode()


def is_vouched(certificates: Sequence[str], by: str, signature: str) -> bool:
    """Whether an authority (PEM) has signed that these are all the authorities."""
    key = _certificates(by)[0].public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    try:
        signed = base64.b64decode(signature, validate=True)
        key.verify(signed, vouching(certificates), ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError):
        return False
    return True


def _ders(certificates: Sequence[str]) -> list[bytes]:
    return [each.public_bytes(_DER) for text in certificates for each in _certificates(text)]


def split_certificates(texts: Sequence[str]) -> list[str]:
    """Return the certificates in texts, each as a text of its own. Raises UnusableKey."""
    return [each.public_bytes(_PEM).decode() for text in texts for each in _certificates(text)]


def _private(key: str) -> ec.EllipticCurvePrivateKey:
    try:
        private = serialization.load_pem_private_key(key.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UnusableKey(f"the private key cannot be read: {error}") from error
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise UnusableKey("the private key is not one on an elliptic curve")
    return private


def _certificates(text: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(text.encode())
    except ValueError as error:
        raise UnusableKey(f"a certificate cannot be read: {error}") from error


def _digest(key: PublicKeyTypes) -> str:
    return hashlib.sha256(key.public_bytes(_DER, _SPKI)).hexdigest()
