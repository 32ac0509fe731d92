"""Finding out whom to trust: an authority is known by its fingerprint before anything is sent."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

from slapos.protocol.certificate_request import (
    UnusableKey,
    fingerprint,
    is_vouched,
    split_certificates,
)
from slapos.protocol.enrolment_client import Authority, EnrolmentClient
from slapos.protocol.errors import MasterFailed, SlapOSError
from slapos.protocol.http_client import HttpClient, HttpSettings
from slapos.system.clock import Clock
from slapos.system.credentials import check_bundle

#: Seconds that the clocks may differ: certificates begin ten minutes before they are made.
CLOCK_DIFFERENCE = 300.0


class WrongAuthority(SlapOSError):
    """Whoever answers is not the master that is meant."""

    code = "wrong_authority"


class ClockOff(SlapOSError):
    """The clock of this machine is not right: certificates would not count."""

    code = "clock_off"


def known_authority(settings: HttpSettings, is_known: Callable[[str], bool], clock: Clock) -> str:
    """Return the authorities (PEM) of a master, of which one has a fingerprint that `is_known`.

    They are asked of whoever answers; nothing secret is sent to him. The others count when the
    known one has signed that they do. Raises WrongAuthority, ClockOff.
    """
    with closing(HttpClient(replace(settings, is_verified=False, token=""))) as http:
        claimed = EnrolmentClient(http).unverified_authority()
    bundle = _known_ones(claimed, is_known, settings.base_url)
    _check_clock(claimed, clock)
    check_bundle(bundle)
    return bundle


def answers(settings: HttpSettings) -> None:
    """See that a master answers, and that each side trusts the other. Raises NotTrusted."""
    with closing(HttpClient(replace(settings, token=""))) as http:
        EnrolmentClient(http).authority()


def _known_ones(claimed: Authority, is_known: Callable[[str], bool], url: str) -> str:
    """Return the one certificate that is known, and those that it vouches for.

    Others may have been slipped in by whoever stands in between.
    """
    try:
        for certificate in split_certificates(claimed.certificates):
            if not is_known(fingerprint(certificate)):
                continue
            for signature in claimed.signatures:
                if is_vouched(claimed.certificates, certificate, signature):
                    return "".join(split_certificates(claimed.certificates))
            return certificate
    except UnusableKey as error:
        raise MasterFailed(f"the master's answer makes no sense: {error}") from error
    raise WrongAuthority(
        f"{url} is not the master that is meant, or somebody stands in between: its authority has "
        "another fingerprint; nothing was sent to it. Is the URL right, and the token or "
        "fingerprint copied whole?"
    )


def _check_clock(claimed: Authority, clock: Clock) -> None:
    if claimed.date is None:
        return
    ahead = (clock.now() - claimed.date).total_seconds()
    if abs(ahead) > CLOCK_DIFFERENCE:
        side = "ahead of" if ahead > 0 else "behind"
        raise ClockOff(
            f"this machine is {abs(ahead):.0f} s {side} the master, and certificates would not "
            "count: set the clock right (NTP: see 'timedatectl'), then run this again; the token "
            "is not used up"
        )
