"""Certificates over HTTP: joining, renewing, asking for those of instances and of oneself."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

from urllib3.exceptions import InsecureRequestWarning

from slapos.protocol.errors import MasterFailed
from slapos.protocol.http_client import HttpClient
from slapos.protocol.json_reader import load_json

#: The longest PEM text of certificates that is taken over.
LARGEST = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Authority:
    """The certificates (PEM) of a master's authorities, and what time it is there (UTC).

    `signatures` are those of each over all of them (`certificate_request.vouch`), if any.
    """

    certificates: tuple[str, ...]
    signatures: tuple[str, ...] = ()
    date: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Issued:
    """A certificate that was made: with its chain, and all authorities to be trusted (PEM)."""

    reference: str
    project: str
    certificate: str
    authority: str


class EnrolmentClient:
    """One master's `/v1` calls about certificates."""

    def __init__(self, http: HttpClient) -> None:
        self.http = http

    def authority(self) -> Authority:
        """Return the master's authorities."""
        response = self.http.request("GET", "v1/authority")
        answer = _object(response.content)
        found, signatures = answer.get("certificates"), answer.get("signatures")
        if not isinstance(found, list) or not found:
            raise MasterFailed("the master's answer makes no sense: it names no authority")
        if sum(len(str(each)) for each in found) > LARGEST:
            raise MasterFailed("the master's answer makes no sense: too many authorities")
        return Authority(
            certificates=tuple(str(each) for each in found),
            signatures=tuple(map(str, signatures)) if isinstance(signatures, list) else (),
            date=_date(response.headers.get("Date", "")),
        )

    def unverified_authority(self) -> Authority:
        """Return the authorities that somebody claims to be the master's: to be checked."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InsecureRequestWarning)
            return self.authority()

    def join(self, token: str, name: str, request: str) -> Issued:
        """Make a node known, and return its certificate."""
        body = {"token": token, "name": name, "certificate_request": request}
        return self._issued("v1/nodes/join", body)

    def renew(self, request: str, *, expired: str | None = None) -> Issued:
        """Return a new certificate for the one that is shown.

        `expired` (PEM) is that certificate when it can no longer be shown; the request is then
        signed with its key.
        """
        body = {"certificate_request": request}
        if expired is not None:
            body["certificate"] = expired
        return self._issued("v1/certificates/renewals", body)

    def partition_certificate(self, node: str, partition: str, request: str) -> Issued:
        """Return the certificate of the instance that is in a partition."""
        place = f"v1/nodes/{quote(node, safe='')}/partitions/{quote(partition, safe='')}"
        return self._issued(f"{place}/certificates", {"certificate_request": request})

    def sign_in(self, email: str, password: str) -> None:
        """Sign in as a person: what this client asks from then on is asked by her."""
        self.http.request("POST", "v1/sign-in", json={"email": email, "password": password})

    def sign_out(self) -> None:
        """End that."""
        self.http.request("POST", "v1/sign-out")

    def own_certificate(self, request: str) -> Issued:
        """Return a certificate for the person who is signed in."""
        return self._issued("v1/me/certificates", {"certificate_request": request})

    def _issued(self, path: str, body: Mapping[str, str]) -> Issued:
        found = _object(self.http.request("POST", path, json=dict(body)).content)
        certificate, authority = found.get("certificate"), found.get("authority")
        if not isinstance(certificate, str) or not isinstance(authority, str):
            raise MasterFailed("the master's answer makes no sense: it holds no certificate")
        if len(certificate) + len(authority) > LARGEST:
            raise MasterFailed("the master's answer makes no sense: its certificates are too long")
        return Issued(
            reference=str(found.get("reference") or ""),
            project=str(found.get("project") or ""),
            certificate=certificate,
            authority=authority,
        )


def _object(content: bytes) -> dict[str, Any]:
    try:
        found = load_json(content)
    except ValueError as error:
        raise MasterFailed(f"the master's answer makes no sense: {error}") from error
    if not isinstance(found, dict):
        raise MasterFailed("the master's answer makes no sense: it is no JSON object")
    return found


def _date(text: str) -> datetime | None:
    try:
        return parsedate_to_datetime(text).astimezone(UTC)
    except (ValueError, TypeError):
        return None
