"""A small master with an authority of its own, over real TLS: certificates by the real calls."""

import ipaddress
import json
import socket
import ssl
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from slapos.protocol.certificate_request import fingerprint, make_key, vouch
from slapos.protocol.join_token import JoinToken
from tests.integration.node.fake_master import FakeMaster

PEM = serialization.Encoding.PEM
DAY = timedelta(days=1)


def now() -> datetime:
    return datetime.now(UTC)


class FakeAuthority:
    """Makes certificates; `age` is how old they are when they are made, `life` for how long."""

    def __init__(self, name: str = "authority") -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            self._builder(self.key.public_key(), self.subject, timedelta(), 1000 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        self.certificate = certificate.public_bytes(PEM).decode()

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.certificate)

    def vouch(self, certificates: list[str]) -> str:
        form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        return vouch(self.key.private_bytes(PEM, form, plain).decode(), certificates)

    def sign(
        self,
        public_key: ec.EllipticCurvePublicKey,
        name: str,
        alternative: x509.GeneralName,
        *,
        age: timedelta = timedelta(),
        life: timedelta = 14 * DAY,
    ) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        return (
            self._builder(public_key, subject, age, life)
            .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
            .sign(self.key, hashes.SHA256())
        )

    def _builder(
        self,
        public_key: ec.EllipticCurvePublicKey,
        subject: x509.Name,
        age: timedelta,
        life: timedelta,
    ) -> x509.CertificateBuilder:
        start = now() - timedelta(minutes=10) - age
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + life)
        )


@dataclass
class FakeCertifyingMaster(FakeMaster):
    """`tokens` maps each token to the name that it is for; `joined` a key's digest to its node.

    `age` and `life` are those of the certificates that it makes. `asked_by` has, for each call,
    who showed a certificate ("" for nobody). A certificate whose serial number is in `revoked`
    is not taken. `instances` maps partitions to what is in them. `drops` are calls that are done,
    but whose answer is lost. `node` is the reference of the next node, when it is not to be
    COMP-1, COMP-2 and so on; `replayed` are signatures over authorities that were heard somewhere;
    `personal_token` that of the one person.
    """

    authority: FakeAuthority = field(default_factory=FakeAuthority)
    served_by: FakeAuthority | None = None
    also_claimed: list[str] = field(default_factory=list)
    tokens: dict[str, str] = field(default_factory=dict)
    joined: dict[str, str] = field(default_factory=dict)
    age: timedelta = timedelta()
    life: timedelta = 14 * DAY
    instances: dict[str, str] = field(default_factory=dict)
    asked_by: list[tuple[str, str]] = field(default_factory=list)
    revoked: set[int] = field(default_factory=set)
    issued: list[x509.Certificate] = field(default_factory=list)
    drops: set[str] = field(default_factory=set)
    node: str = ""
    replayed: list[str] = field(default_factory=list)
    personal_token: str = "slapos_personal"

    def __post_init__(self) -> None:
        self.context = context_of(self.served_by or self.authority, [self.authority])

    def new_token(self, name: str = "edge-1") -> str:
        secret = f"{len(self.tokens):032d}"
        token = JoinToken.compose(secret, self.authority.fingerprint).text
        self.tokens[token] = name
        return token

    def certify(
        self, call: str, body: str, connection: socket.socket, authorization: str
    ) -> tuple[bytes, int] | None:
        who = ""
        assert isinstance(connection, ssl.SSLSocket)
        if shown := connection.getpeercert(binary_form=True):
            certificate = x509.load_der_x509_certificate(shown)
            if certificate.serial_number not in self.revoked:
                who = uri_of(certificate)
        if authorization == f"Bearer {self.personal_token}":
            who = "slapos:person:P-2"
        self.asked_by.append((call, who))
        answer = self._certify(
            call, json.loads(body) if call.startswith("v1/") and body else {}, who
        )
        if call in self.drops and answer is not None:
            raise ConnectionAbortedError(call)
        return answer

    def _certify(self, call: str, given: dict[str, str], who: str) -> tuple[bytes, int] | None:
        match call.split("/"):
            case ["v1", "authority"]:
                claimed = [*self.also_claimed, self.authority.certificate]
                signatures = [*self.replayed, self.authority.vouch(claimed)]
                said = {"certificates": claimed, "fingerprints": [], "signatures": signatures}
                return json.dumps(said).encode(), 200
            case ["v1", "nodes", "join"]:
                return self._join(given)
            case ["v1", "certificates", "renewals"]:
                return self._renew(given, who)
            case ["v1", "nodes", node, "partitions", name, "certificates"]:
                if who != f"slapos:node:{node}" or name not in self.instances:
                    return b"no such partition", 404
                return self._issue(f"slapos:instance:{self.instances[name]}", given)
            case ["v1", "me"] if who:
                return b'{"reference": "P-2"}', 200
            case ["v1", "me", "certificates"] if who:
                return self._issue("slapos:person:P-2", given)
            case _:
                return None if who else (b"who are you?", 401)

    def _join(self, given: dict[str, str]) -> tuple[bytes, int]:
        request = x509.load_pem_x509_csr(given["certificate_request"].encode())
        digest = str(request.public_key().public_numbers().x)  # type: ignore[union-attr]
        name = self.tokens.get(given["token"])
        used = digest not in self.joined and given["token"] in self.joined.values()
        if name != given["name"] or used:
            return b'{"code": "token_invalid", "message": "token_invalid"}', 403
        self.joined.setdefault(digest, self.node or f"COMP-{len(self.joined) + 1}")
        return self._issue(f"slapos:node:{self.joined[digest]}", given, status=201)

    def _renew(self, given: dict[str, str], who: str) -> tuple[bytes, int]:
        if not who and "certificate" in given:
            old = x509.load_pem_x509_certificate(given["certificate"].encode())
            request = x509.load_pem_x509_csr(given["certificate_request"].encode())
            is_late = now() - old.not_valid_after_utc > 90 * DAY
            if (
                old.public_key() == request.public_key()
                and old.serial_number not in self.revoked
                and not is_late
            ):
                who = uri_of(old)
        if not who:
            return b"who are you?", 401
        return self._issue(who, given)

    def _issue(self, uri: str, given: dict[str, str], status: int = 200) -> tuple[bytes, int]:
        request = x509.load_pem_x509_csr(given["certificate_request"].encode())
        assert request.is_signature_valid
        key = request.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        reference = uri.rpartition(":")[2]
        name = x509.UniformResourceIdentifier(uri)
        made = self.authority.sign(key, reference, name, age=self.age, life=self.life)
        self.issued.append(made)
        answer = {
            "reference": reference,
            "project": "PROJ-1",
            "certificate": made.public_bytes(PEM).decode(),
            "authority": "".join([*self.also_claimed, self.authority.certificate]),
            "not_after": format_datetime(made.not_valid_after_utc),
        }
        return json.dumps(answer).encode(), status


def uri_of(certificate: x509.Certificate) -> str:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return str(names.get_values_for_type(x509.UniformResourceIdentifier)[0])


def context_of(server: FakeAuthority, clients: list[FakeAuthority]) -> ssl.SSLContext:
    """Return what a server on 127.0.0.1 speaks TLS with, and reads certificates."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_OPTIONAL
    for each in clients:
        context.load_verify_locations(cadata=each.certificate)
    key = make_key()
    private = serialization.load_pem_private_key(key.encode(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    address = x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))
    certificate = server.sign(private.public_key(), "master", address, life=30 * DAY)
    with tempfile.TemporaryDirectory() as folder:
        chain = Path(folder) / "chain.pem"
        chain.write_text(key + certificate.public_bytes(PEM).decode())
        context.load_cert_chain(chain)
    return context
