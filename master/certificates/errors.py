"""Why a certificate or a join token does not count."""

from slapos.master.identity.subject import Subject
from slapos.protocol.errors import Forbidden, Unauthorized


class TokenInvalid(Forbidden):
    """A join token is unknown, used, expired, or for another name; `about` is it, when known."""

    code = "token_invalid"

    def __init__(self, message: str, about: Subject | None = None) -> None:
        super().__init__(message)
        self.about = about


class CertificateRefused(Unauthorized):
    """A certificate does not count; `about` is it, when it is one of ours."""

    code = "certificate_unknown"

    def __init__(self, message: str, about: Subject | None = None) -> None:
        super().__init__(message)
        self.about = about


class CertificateUnknown(CertificateRefused):
    """A certificate is none of ours, or whom it was for is gone."""


class CertificateRevoked(CertificateRefused):
    """A certificate has been revoked, or the authority that signed it."""

    code = "certificate_revoked"


class CertificateExpired(CertificateRefused):
    """A certificate has ended, or has not begun."""

    code = "certificate_expired"


class CertificateWrongPurpose(CertificateRefused):
    """A certificate is for servers, not for those who ask."""

    code = "certificate_wrong_purpose"


class RenewalRefused(CertificateRefused):
    """A certificate is asked for by who does not show to be whom it would be for."""

    code = "renewal_refused"
