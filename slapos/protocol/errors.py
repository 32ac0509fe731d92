"""Everything that is raised on purpose.

`code` is for programs and never changes; the message is for people and names cause and remedy.
How an error is shown is decided at the edge: `master/http.py` turns it into an HTTP status,
`slapos/command/main.py` into an exit status.
"""

from collections.abc import Mapping
from typing import ClassVar


class SlapOSError(Exception):
    """The root of our errors."""

    code: ClassVar[str] = "error"


class InvalidRequest(SlapOSError):
    """What was asked makes no sense."""

    code = "invalid"


class MalformedDocument(InvalidRequest):
    """A document (XML, JSON) is broken, too large, too deep, or names what it must not."""

    code = "malformed_document"


class InvalidFields(InvalidRequest):
    """Fields of what was asked cannot be used; `fields` says why, by their names."""

    def __init__(self, message: str, fields: Mapping[str, str]) -> None:
        super().__init__(message)
        self.fields = fields


class UnsupportedContent(InvalidRequest):
    """The content is of another type than what is taken."""

    code = "unsupported_content"


class InvalidConfiguration(SlapOSError):
    """A settings file or an option has a value that cannot be used."""

    code = "invalid_configuration"


class NotFound(SlapOSError):
    """What was named is not there."""

    code = "not_found"


class Conflict(SlapOSError):
    """What was asked does not fit the present state."""

    code = "conflict"


class PreconditionFailed(SlapOSError):
    """What was to be changed is not as the one who asks has seen it."""

    code = "precondition_failed"


class Forbidden(SlapOSError):
    """The one who asks may not."""

    code = "forbidden"


class Unauthorized(SlapOSError):
    """Nobody knows who asks: no certificate, token or session, or one that does not count."""

    code = "unauthorized"


class TooManyRequests(SlapOSError):
    """Somebody asks too often; `seconds` is when to come back."""

    code = "too_many_requests"

    def __init__(self, message: str, seconds: int) -> None:
        super().__init__(message)
        self.seconds = seconds


class KeyReused(SlapOSError):
    """An idempotency key came with another request than before."""

    code = "key_reused"


class SignInRefused(Unauthorized):
    """What was given to sign in does not fit; which part of it is not told."""

    code = "sign_in_refused"


class SecondFactorNeeded(Unauthorized):
    """The password is right, and the account wants the code of a second factor too."""

    code = "second_factor_needed"


class SecondFactorRequired(Forbidden):
    """The roles of the one who asks need a second factor, and there is none."""

    code = "second_factor_required"


class SecretInvalid(Forbidden):
    """A link, token or invitation that is good once is unknown, used or expired."""

    code = "token_invalid"


class ProviderFailed(SlapOSError):
    """The OpenID provider gives no answer, or one that is none."""

    code = "provider_failed"


class CrossSite(Forbidden):
    """A page of another site had a browser ask."""

    code = "cross_site"


class TooManyAttempts(TooManyRequests):
    """Somebody guesses how to sign in."""

    code = "too_many_attempts"


class NotReady(SlapOSError):
    """It was accepted and is on its way; ask again."""

    code = "not_ready"


class NoCapacity(SlapOSError):
    """No partition can take the instance; the message says why."""

    code = "no_capacity"


class MasterUnreachable(SlapOSError):
    """The master gave no answer: refused, timed out, or the name does not resolve."""

    code = "master_unreachable"


class MasterFailed(SlapOSError):
    """The master answered, but with a failure or with something that is not an answer."""

    code = "master_failed"
