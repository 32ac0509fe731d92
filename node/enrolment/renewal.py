"""Keeping certificates up to date: the node's own, its instances', and whom to trust.

All is looked at again and again, and nothing is done before two thirds of a life have passed. The
agent does that in a thread of its own, each of the other commands before its work.
"""

import logging
from contextlib import closing
from dataclasses import replace

from slapos.node.enrolment.instance_certificate import (
    due_partitions,
    renew_instance_certificate,
)
from slapos.node.enrolment.node_certificate import node_credentials
from slapos.node.report.back_off import BackOff
from slapos.node.settings import Registration
from slapos.protocol.enrolment_client import EnrolmentClient
from slapos.protocol.errors import MasterUnreachable, NotFound, SlapOSError
from slapos.protocol.http_client import HttpClient
from slapos.system.clock import Clock
from slapos.system.credentials import Credentials, keep_current
from slapos.system.identifier import Identifiers
from slapos.system.process_lock import AlreadyRunning, process_lock

logger = logging.getLogger(__name__)

#: Seconds between two looks; a machine that slept finds out after so long at most.
LOOK_INTERVAL = 600.0
#: Seconds to wait after failures, at first and at most.
FIRST_WAIT, LONGEST_WAIT = 10.0, 900.0
#: Seconds that a command other than the agent gives a master to answer.
PASSING_TIMEOUT = 10.0


class Renewal:
    """Renews what is due, for one node."""

    def __init__(
        self,
        settings: Registration,
        credentials: Credentials,
        clock: Clock,
        identifiers: Identifiers,
    ) -> None:
        self._settings = settings
        self._credentials = credentials
        self._clock = clock
        self._spread = identifiers.fraction()
        self._back_off = BackOff(identifiers, first=FIRST_WAIT, longest=LONGEST_WAIT)
        self._told = ""

    def run_pending(self) -> float:
        """Renew what is due; return the seconds until it is to be looked again."""
        troubles = keep_current(self._credentials, self._clock, self._spread)
        try:
            self._renew_instances()
        except (SlapOSError, OSError) as error:
            troubles.append(str(error))
        if not troubles:
            if self._told:
                logger.info("certificates are renewed again")
            self._told = ""
            self._back_off.succeeded()
            return LOOK_INTERVAL
        if troubles[0] != self._told:
            self._told = troubles[0]
            logger.warning("certificates are not renewed, it is tried again: %s", troubles[0])
        return min(self._back_off.failed(), LOOK_INTERVAL)

    def _renew_instances(self) -> None:
        due = due_partitions(self._settings, self._clock.now(), self._spread)
        if not due:
            return
        failed: SlapOSError | OSError | None = None
        with closing(HttpClient(self._credentials.http_settings())) as http:
            client = EnrolmentClient(http)
            for partition in due:
                try:
                    with process_lock(self._settings.layout.partition_lock(partition)):
                        renew_instance_certificate(partition, self._settings, client)
                except MasterUnreachable:
                    raise  # for the others, too
                except AlreadyRunning as error:
                    logger.debug("%s", error)
                except NotFound as error:
                    # It goes, or the master does not know it any more: then there is none to have.
                    logger.debug("%s: it has no certificate at the master: %s", partition, error)
                except (SlapOSError, OSError) as error:
                    logger.debug("%s: its certificate is not renewed: %s", partition, error)
                    failed = error
        if failed is not None:
            raise failed


def make_renewal(settings: Registration, clock: Clock, identifiers: Identifiers) -> Renewal | None:
    """Return what renews the certificates of a node; None where there are none of ours."""
    credentials = node_credentials(settings)
    if credentials is None:
        return None
    return Renewal(settings, credentials, clock, identifiers)


def renew_in_passing(settings: Registration, clock: Clock, identifiers: Identifiers) -> None:
    """Renew what is due before other work begins; what fails is only said."""
    patience = min(settings.request_timeout, PASSING_TIMEOUT)
    renewal = make_renewal(replace(settings, request_timeout=patience), clock, identifiers)
    if renewal is not None:
        renewal.run_pending()
