"""Signing in at an OpenID provider (OpenID Connect Core 1.0, code flow with PKCE).

What is asked of the provider goes over the network, so never inside a transaction.
"""

import base64
import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import quote, urlencode

import requests
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from sqlalchemy import bindparam, delete, select
from sqlalchemy.orm import Session

from slapos.master.identity import service
from slapos.master.identity.credentials import ExternalAccount, OpenidAttempt
from slapos.master.identity.model import Person
from slapos.master.identity.one_way import hash_of, new_secret
from slapos.protocol.errors import ProviderFailed, SecretInvalid, SignInRefused
from slapos.protocol.json_reader import load_json
from slapos.system.clock import Clock
from slapos.system.identifier import Identifiers

#: How long somebody may take at the provider.
LIFE = timedelta(minutes=10)
#: How long what a provider says of itself is believed, in seconds.
KEPT = 600.0
#: Signatures by keys that only the provider has; never none, never a shared secret.
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"]
#: How far clocks may differ, in seconds.
LEEWAY = 60
TIMEOUT = 10
LARGEST = 1024 * 1024
DISCOVERY = "/.well-known/openid-configuration"

_ATTEMPT = select(OpenidAttempt).where(OpenidAttempt.hash == bindparam("hash"))
_ACCOUNT = select(ExternalAccount).where(
    ExternalAccount.issuer == bindparam("issuer"),
    ExternalAccount.external_id == bindparam("external_id"),
)


@dataclass(frozen=True)
class Provider:
    """An OpenID provider, as the settings name it; `title` is what people know it by."""

    issuer: str
    client_id: str
    client_secret: str
    title: str


@dataclass(frozen=True)
class Waiting:
    """What was sent to the provider with a browser."""

    nonce: str
    verifier: str
    path: str


@dataclass(frozen=True)
class Claims:
    """Who somebody is, as the provider says; `email` is one that it has verified, else None."""

    issuer: str
    external_id: str
    email: str | None


class Dialogue:
    """Speaks with one provider, and remembers what it says of itself."""

    def __init__(self, provider: Provider, clock: Clock) -> None:
        self.provider = provider
        self._clock = clock
        self._lock = threading.Lock()
        self._metadata: tuple[float, Mapping[str, Any]] | None = None

    def address(self, state: str, waiting: Waiting, redirect: str) -> str:
        """Return where a browser is sent to; asks the provider where that is."""
        digest = hashlib.sha256(waiting.verifier.encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        asked = {
            "response_type": "code",
            "client_id": self.provider.client_id,
            "redirect_uri": redirect,
            "scope": "openid email",
            "state": state,
            "nonce": waiting.nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        endpoint = self._endpoint("authorization_endpoint")
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(asked)}"

    def claims(self, code: str, waiting: Waiting, redirect: str) -> Claims:
        """Return who has come back with a code; raises ProviderFailed, SignInRefused."""
        answer = self._ask(
            "POST",
            self._endpoint("token_endpoint"),
            data={
                "grant_type": "authorization_code",
                "code": code,
                "redirect_uri": redirect,
                "code_verifier": waiting.verifier,
            },
            # RFC 6749 §2.3.1: both are encoded as in a form first.
            auth=(quote(self.provider.client_id, ""), quote(self.provider.client_secret, "")),
        )
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise ProviderFailed(f"{self.provider.issuer} answers without an ID token")
        return self._read(token, waiting.nonce)

    def _read(self, token: str, nonce: str) -> Claims:
        keys = self._ask("GET", self._endpoint("jwks_uri"))
        try:
            decoded = jwt.decode(token, KeySet.import_key_set(keys), algorithms=ALGORITHMS)  # type: ignore[arg-type]
            registry = jwt.JWTClaimsRegistry(
                now=int(self._clock.now().timestamp()),
                leeway=LEEWAY,
                iss={"essential": True, "value": self.provider.issuer},
                aud={"essential": True, "value": self.provider.client_id},
                exp={"essential": True},
                iat={"essential": True},
                sub={"essential": True},
                nonce={"essential": True, "value": nonce},
            )
            registry.validate(decoded.claims)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise SignInRefused(f"the ID token of {self.provider.issuer} does not count") from error
        claims = decoded.claims
        # OpenID Connect Core 1.0 §3.1.3.7: a token for several must have been asked for by us.
        party = claims.get("azp", self.provider.client_id)
        if party != self.provider.client_id or not isinstance(claims["sub"], str):
            raise SignInRefused(f"the ID token of {self.provider.issuer} is for somebody else")
        is_verified = claims.get("email_verified") is True
        email = claims.get("email") if is_verified else None
        return Claims(
            self.provider.issuer,
            claims["sub"][:255],
            email.strip().lower() if isinstance(email, str) else None,
        )

    def _endpoint(self, name: str) -> str:
        with self._lock:
            kept = self._metadata
        if kept is None or self._clock.monotonic() - kept[0] > KEPT:
            found = self._ask("GET", self.provider.issuer.rstrip("/") + DISCOVERY)
            if found.get("issuer") != self.provider.issuer:
                raise ProviderFailed(
                    f"{self.provider.issuer} says that it is {found.get('issuer')!r}: "
                    "set openid_issuer to exactly that, if it is right"
                )
            kept = self._clock.monotonic(), found
            with self._lock:
                self._metadata = kept
        endpoint = kept[1].get(name)
        if not isinstance(endpoint, str) or not is_secure(endpoint):
            raise ProviderFailed(f"{self.provider.issuer} names no {name} by https")
        return endpoint

    def _ask(self, method: str, url: str, **options: Any) -> Mapping[str, Any]:
        """Return the JSON object of an answer; follows no redirection, reads no endless answer."""
        headers = {"Accept": "application/json"}
        try:
            with requests.request(
                method,
                url,
                headers=headers,
                timeout=TIMEOUT,
                allow_redirects=False,
                stream=True,
                **options,
            ) as response:
                content = response.raw.read(LARGEST + 1, decode_content=True)
                if response.status_code != 200 or len(content) > LARGEST:
                    raise ProviderFailed(
                        f"{self.provider.issuer} answered {response.status_code} to {method} {url}"
                    )
                found = load_json(content)
        except (requests.RequestException, OSError, ValueError) as error:
            raise ProviderFailed(
                f"{self.provider.issuer} gives no answer that can be used; try again later"
            ) from error
        if not isinstance(found, dict):
            raise ProviderFailed(f"{self.provider.issuer} answers with something that is no object")
        return found


def is_secure(url: str) -> bool:
    """Return whether what is sent there is encrypted, or stays on this machine."""
    return url.startswith(("https://", "http://localhost:", "http://127.0.0.1:", "http://[::1]:"))


def begin(
    session: Session, clock: Clock, identifiers: Identifiers, path: str
) -> tuple[str, Waiting]:
    """Keep what a browser is sent away with; return the state that it comes back with."""
    state = new_secret(identifiers)
    waiting = Waiting(new_secret(identifiers), new_secret(identifiers, "v" * 8), path)
    session.add(
        OpenidAttempt(
            hash=hash_of(state),
            nonce=waiting.nonce,
            verifier=waiting.verifier,
            path=path,
            expires_at=clock.now() + LIFE,
        )
    )
    session.flush()
    return state, waiting


def come_back(session: Session, clock: Clock, state: str) -> Waiting:
    """Return what a browser was sent away with, this once; raises SecretInvalid."""
    attempt = session.scalar(_ATTEMPT.with_for_update(), {"hash": hash_of(state)})
    if attempt is None or attempt.expires_at <= clock.now():
        raise SecretInvalid("that took too long, or was done already; sign in again")
    session.execute(delete(OpenidAttempt).where(OpenidAttempt.hash == attempt.hash))
    return Waiting(attempt.nonce, attempt.verifier, attempt.path)


def person_of(session: Session, clock: Clock, claims: Claims) -> Person:
    """Return whose account it is: known by issuer and subject, the first time by e-mail address.

    Raises SignInRefused.
    """
    told = {"issuer": claims.issuer, "external_id": claims.external_id}
    account = session.scalar(_ACCOUNT, told)
    if account is not None:
        return session.get_one(Person, account.person_id)
    person = None if claims.email is None else service.person_of_email(session, claims.email)
    if person is None:
        raise SignInRefused(
            "nobody here has the e-mail address that the provider has verified; "
            "ask for an invitation"
        )
    session.add(ExternalAccount(person_id=person.id, created_at=clock.now(), **told))
    session.flush()
    return person
