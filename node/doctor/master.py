"""Checks of what lies between node and master: the answer, the clock, the certificates."""

import ssl
import stat
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path

from slapos.node.doctor.finding import Examined, MasterAnswer
from slapos.node.enrolment.instance_certificate import instance_certificates
from slapos.node.enrolment.node_certificate import node_credentials
from slapos.node.settings import NodeSettings
from slapos.protocol.certificate import Certificate, read_certificate
from slapos.protocol.errors import NotFound, SlapOSError
from slapos.protocol.slap_client import SlapClient
from slapos.system.clock import Clock
from slapos.system.finding import Finding, ok, problem, warning

#: Seconds that the clock may be off; the master's Date has whole seconds.
CLOCK_DIFFERENCE = 5.0
#: Seconds in which a master should answer.
SLOW = 2.0
#: Seconds before the end of a certificate from which on it is warned of.
SOON = 30 * 86400.0
#: As the spread of renewals: past this, one is late.
LATE = 2.0
#: What to do about one that is late.
RENEW = (
    "the agent (or any 'slapos node' pass) renews it: see 'slapos node status', and its log for "
    "why it could not; 90 days after its end, join again with 'slapos node register --force'"
)


def ask_master(client: SlapClient, node: str, clock: Clock) -> MasterAnswer:
    """Ask the master for what a pass asks for, and for its time."""
    began = clock.monotonic()
    try:
        information = client.node_information(node)
        latency = clock.monotonic() - began
        query = {"computer_id": node}
        date = client.http.request("GET", "getFullComputerInformation", query=query).headers.get(
            "Date"
        )
    except NotFound as error:
        return MasterAnswer(error=f"the master does not know this node, {node!r}: {error}")
    except SlapOSError as error:
        return MasterAnswer(error=str(error))
    ahead = None
    if date:
        try:
            ahead = (clock.now() - parsedate_to_datetime(date)).total_seconds()
        except (ValueError, TypeError):  # no date, or one of no time zone
            ahead = None
    return MasterAnswer(information=information, latency=latency, ahead=ahead)


def check_master(examined: Examined) -> Iterator[Finding]:
    """See that the master answers what makes sense, and knows this node."""
    settings, answer = examined.doors.settings, examined.answer
    known = answer.information
    if known is None:
        yield problem(
            answer.error,
            "start the master, or correct master_url, computer_id and the certificates in "
            "[slapos]; 'slapos node format' makes the node known to a master on this machine",
        )
        return
    taken = sum(not partition.is_free for partition in known.partitions)
    said = (
        f"{settings.master_url} answered in {answer.latency * 1000:.0f} ms: "
        f"{len(known.partitions)} partitions, {taken} taken, {len(known.releases)} releases"
    )
    if answer.latency > SLOW:
        yield warning(said, "look at the network, and at the load of the master")
    else:
        yield ok(said)
    if not known.partitions:
        yield warning("the master knows no partitions of this node", "run 'slapos node format'")


def check_clock(examined: Examined) -> Iterator[Finding]:
    """See that our clock and the master's are at the same time."""
    ahead = examined.answer.ahead
    if ahead is None:
        yield ok("not compared: the master told no time")
    elif abs(ahead) > CLOCK_DIFFERENCE:
        side = "ahead of" if ahead > 0 else "behind"
        yield warning(
            f"this machine is {abs(ahead):.0f} s {side} the master",
            "keep both clocks right with NTP: see 'timedatectl'",
        )
    else:
        yield ok("this machine and the master have the same time")


def check_certificates(examined: Examined) -> Iterator[Finding]:
    """See that the node's key is its own, fits its certificate, and that none has expired."""
    settings = examined.doors.settings
    now = examined.doors.now()
    if settings.master_ca_file is not None:
        yield _expiry(settings.master_ca_file, now, "ask the master's operator for the new one")
    if settings.key_file is None or settings.cert_file is None:
        yield ok("the settings name no certificate of this node: the master wants none, or refuses")
        return
    yield from _key(settings.key_file, settings.cert_file)
    is_ours = node_credentials(settings) is not None
    remedy = RENEW if is_ours else "ask the master's operator for a new certificate"
    yield _expiry(settings.cert_file, now, remedy)
    yield from _repository(settings)
    yield from _instances(settings, now)


def _key(key: Path, certificate: Path) -> Iterator[Finding]:
    mode = stat.S_IMODE(key.stat().st_mode)
    if mode & 0o077:
        yield problem(f"{key} can be read by others, its mode is {mode:04o}", f"chmod 0600 {key}")
    try:
        # An empty password, so that nobody is asked for one.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, lambda: "")
    except (ssl.SSLError, OSError) as error:
        yield problem(
            f"{certificate} and {key} cannot be used together: {error}",
            "put the certificate and the key that were made with it there, both as PEM",
        )
    else:
        yield ok(f"{key} belongs to {certificate}")


def _repository(settings: NodeSettings) -> Iterator[Finding]:
    folder = settings.certificate_repository_path
    if folder is not None and not folder.is_dir():
        yield problem(f"{folder} is no directory", f"mkdir -m 0700 {folder}")


def _expiry(certificate: Path, now: float, remedy: str) -> Finding:
    found = read_certificate(certificate)
    if found is None:
        return warning(f"{certificate} cannot be read as a certificate", "put it there as PEM")
    end, day = found.not_after.timestamp(), found.not_after.date()
    if end < now:
        return problem(f"{certificate} has expired on {day}", remedy)
    if found.uri:
        return _renewed(str(certificate), found, now)
    if end - now < SOON:
        return warning(f"{certificate} expires on {day}", remedy)
    return ok(f"{certificate} is valid until {day}")


def _renewed(name: str, found: Certificate, now: float) -> Finding:
    """Say whether a certificate that is renewed in time was."""
    end, due = found.not_after.date(), found.due().date()
    if now > found.due(LATE).timestamp():
        return warning(f"{name} is valid until {end}, and was to be renewed on {due}", RENEW)
    return ok(f"{name} is valid until {end}, and renewed from {due} on")


def _instances(settings: NodeSettings, now: float) -> Iterator[Finding]:
    """Speak of the certificate of an instance that ends first."""
    found = instance_certificates(settings)
    if not found:
        return
    first = min(found, key=lambda name: found[name].not_after)
    if found[first].not_after.timestamp() < now:
        yield problem(f"the certificate of {first} has expired", RENEW)
        return
    yield _renewed(
        f"of {len(found)} certificates of instances the first to end, that of {first},",
        found[first],
        now,
    )
