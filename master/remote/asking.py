"""Speaking with the master behind a remote node: it is asked as SLAP has it, by a person there.

Nothing of it touches the database. Keys are given to OpenSSL in memory, never in a file of a disk.
"""

import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from slapos.master.outside import Network, Resolve, is_allowed, resolved
from slapos.protocol.certificate import parse_certificate
from slapos.protocol.certificate_request import make_request
from slapos.protocol.enrolment_client import EnrolmentClient
from slapos.protocol.errors import (
    InvalidConfiguration,
    InvalidRequest,
    MasterFailed,
    MasterUnreachable,
    NotFound,
    NotReady,
    SlapOSError,
    Unauthorized,
)
from slapos.protocol.http_client import HttpClient, HttpSettings
from slapos.protocol.instance_xml import from_instance_xml, to_instance_xml
from slapos.protocol.messages import RequestedInstance
from slapos.protocol.prerequisite import waiting_sentence
from slapos.protocol.slap_client import SlapClient
from slapos.protocol.states import InstanceState

#: Seconds for a connection, and between two bytes of an answer.
TIMEOUT = 10.0
#: Bytes of the largest answer that is taken.
LARGEST = 4 * 1024 * 1024
ERROR = "#error "
#: How a master says that it was told nothing of an instance yet.
NO_DATA = "no data found for "
#: A timestamp above it is no number of seconds: ERP5's master counts microseconds.
MICROSECONDS = 1e12
#: How the client begins the errors of answers.
_ASKED = re.compile(r"^(GET|POST) \S+: ")
#: What the settings of a client are called where they are those of a remote node.
_WORDS = {"master_url": "the URL of the remote node", "master_ca_file": "its authority"}
#: That the other master does not answer, or not to us: it need not be asked for anything else now.
SILENT = (MasterUnreachable, Unauthorized, InvalidConfiguration)


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Credentials:
    """By what a person of the other master is known: a token, or a certificate and its key."""

    token: str = field(default="", repr=False)
    certificate: str = ""
    key: str = field(default="", repr=False)

    @property
    def until(self) -> datetime | None:
        """When the certificate ends; None for a token."""
        found = parse_certificate(self.certificate)
        return None if found is None else found.not_after

    def to_json(self) -> str:
        """Return them as they are sealed."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Credentials":
        """Read what was sealed."""
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Peer:
    """Another master: where it is, whom we are there, and what is sent with each order."""

    url: str
    authority: str
    credentials: Credentials
    project: str = ""
    filters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reach:
    """To which networks may be spoken; without any, by TLS to public addresses only."""

    networks: tuple[Network, ...] = ()
    resolve: Resolve = resolved

    def address_of(self, host: str) -> str:
        """Return an address of a host, such as may be spoken to; raises OSError."""
        found = [ip_address(each) for each in self.resolve(host)]
        if not found or not all(is_allowed(each, self.networks) for each in found):
            raise OSError(f"the address of {host} is not one that remote_networks allows")
        return str(found[0])


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """An instance as it is to be on another master."""

    title: str
    software_url: str
    software_type: str
    shared: bool
    state: InstanceState
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Told:
    """What another master said of an instance.

    `error` is what is wrong with it, or what it waits for. Without one, `is_done` is whether it has
    been brought about. `connection` is None when nothing was said of it.
    """

    connection: Mapping[str, Any] | None = None
    error: str = ""
    is_done: bool = False
    is_refused: bool = False


@contextmanager
def speaking_with(peer: Peer, reach: Reach) -> Iterator[SlapClient]:
    """Give a client of another master; connections are made when something is asked."""
    with ExitStack() as stack:
        shown = peer.credentials
        http = HttpClient(
            HttpSettings(
                base_url=peer.url,
                timeout=TIMEOUT,
                retries=1,
                key_file=_in_memory(stack, shown.key),
                certificate_file=_in_memory(stack, shown.certificate),
                authority_file=_in_memory(stack, peer.authority),
                token=shown.token,
                largest=LARGEST,
                resolve=reach.address_of,
            )
        )
        stack.callback(http.close)
        yield SlapClient(http)


def check_files(peer: Peer) -> None:
    """Raise InvalidConfiguration when the certificates and the key of a peer cannot be used."""
    with ExitStack() as stack:
        HttpSettings(
            base_url=peer.url,
            key_file=_in_memory(stack, peer.credentials.key),
            certificate_file=_in_memory(stack, peer.credentials.certificate),
            authority_file=_in_memory(stack, peer.authority),
        ).tls_files.context()


def ask(client: SlapClient, peer: Peer, wanted: Wanted) -> Told:
    """Order an instance as it is to be, and return what is said of it.

    The same order again changes nothing there. Raises what is in SILENT.
    """
    try:
        answer = client.request(
            software_url=wanted.software_url,
            software_type=wanted.software_type,
            title=wanted.title,
            parameters=wanted.parameters,
            filters=peer.filters | ({"project_guid": peer.project} if peer.project else {}),
            state=wanted.state,
            shared=wanted.shared,
        )
        return _told(client, answer, wanted)
    except SILENT:
        raise
    except NotReady as error:
        if wanted.state is InstanceState.DESTROYED:
            return Told(is_done=True)  # so a master says that there is none
        return Told(error=waiting_sentence(peer.url, f": {_line(str(error))}"))
    except MasterFailed as error:
        return Told(error=f"{peer.url} fails: {_line(str(error))}")
    except SlapOSError as error:
        said = f"{peer.url} refuses it: {_line(str(error))}"
        return Told(error=said, is_refused=True)


def renewed(client: SlapClient, peer: Peer, now: datetime) -> Peer | None:
    """Return the peer with another certificate when ours is due; None when it is not, or was not.

    Its key stays, so that nothing is lost if we are killed before it is kept. A master that is not
    of our kind has no such call. Raises what is in SILENT.
    """
    shown = peer.credentials
    certificate = parse_certificate(shown.certificate)
    if certificate is None or now < certificate.due():
        return None
    try:
        issued = EnrolmentClient(client.http).renew(make_request(shown.key, "slapos"))
    except SILENT:
        raise
    except SlapOSError as error:
        log.warning("the certificate for %s is not renewed: %s", peer.url, error)
        return None
    authority = issued.authority if peer.authority else ""
    credentials = replace(shown, certificate=issued.certificate)
    return replace(peer, credentials=credentials, authority=authority)


def words_of(error: SlapOSError) -> str:
    """Return what an error of SILENT says, in the words of remote nodes."""
    said = _line(str(error))
    for name, meant in _WORDS.items():
        said = said.replace(name, meant)
    return said


def _told(client: SlapClient, answer: RequestedInstance, wanted: Wanted) -> Told:
    connection = _texts(answer.connection)
    if wanted.state is InstanceState.DESTROYED or wanted.shared:
        # Who has a shared instance cannot ask how its host does.
        return Told(connection, is_done=True)
    if not _is_text(answer.node) or not _is_text(answer.partition):
        return Told(connection)
    assert answer.node is not None
    assert answer.partition is not None
    try:
        status = client.instance_status(answer.node, answer.partition)
    except NotFound:
        status = None
    if status is None:  # that master does not say how its instances do
        return Told(connection, is_done=True)
    text = str(status.get("text", ""))
    if not _is_young(status, answer) or text.startswith(f"{ERROR}{NO_DATA}"):
        return Told(connection)
    if text.startswith(ERROR):
        return Told(connection, error=text.removeprefix(ERROR))
    state = str(status.get("state") or wanted.state)
    return Told(connection, is_done=state == wanted.state)


def _texts(connection: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what is published as it is stored; raises MasterFailed when it cannot be."""
    try:
        return from_instance_xml(to_instance_xml(dict(connection)))
    except (InvalidRequest, TypeError, ValueError) as error:
        raise MasterFailed(f"what it publishes makes no sense: {error}") from error


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_young(status: Mapping[str, Any], answer: RequestedInstance) -> bool:
    """Return whether a status is about what is asked now; both are by the clock of that master."""
    try:
        said_at = parsedate_to_datetime(str(status["created_at"]))
        number = float(answer.attributes["timestamp"])
        seconds = number / 1e6 if number > MICROSECONDS else number
        return said_at >= datetime.fromtimestamp(seconds, UTC).replace(microsecond=0)
    except (KeyError, ValueError, TypeError, OverflowError, OSError):
        return True  # another kind of master


def _line(text: str) -> str:
    """Return what was said as one line, without what was asked."""
    return " ".join(_ASKED.sub("", text).split())


def _in_memory(stack: ExitStack, text: str) -> Path | None:
    """Return the path of a file with a text, which is there as long as the stack; None without."""
    if not text:
        return None
    descriptor = os.memfd_create("slapos")
    stack.callback(os.close, descriptor)
    os.write(descriptor, text.encode())
    return Path(f"/proc/self/fd/{descriptor}")
