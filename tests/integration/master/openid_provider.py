"""A small OpenID provider, for real: a web server with keys, which lets in whom it is told to."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

CLIENT = "slapos"
SECRET = "a secret: of the client"


class OpenidProvider:
    """What it answers, and how tests have it lie: `claims` are put over those that are right."""

    def __init__(self) -> None:
        self.key = ECKey.generate_key("P-256", parameters={"kid": "1"})
        self.signing_key = self.key
        self.algorithm = "ES256"
        self.claims: dict[str, Any] = {}
        self.metadata: dict[str, Any] = {}
        self.codes: dict[str, dict[str, str]] = {}
        self.asked: list[str] = []
        self.issuer = ""
        self.now = 0

    def authorise(self, location: str) -> dict[str, str]:
        """Let somebody in, as a browser would be; return what she goes back with."""
        parts = urlsplit(location)
        assert location.startswith(f"{self.issuer}/authorise?")
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        assert asked["response_type"] == "code"
        assert asked["client_id"] == CLIENT
        assert asked["code_challenge_method"] == "S256"
        code = f"code-{len(self.codes)}"
        self.codes[code] = asked
        return {"code": code, "state": asked["state"]}

    def answer(self, method: str, path: str, body: str, authorization: str) -> tuple[int, Any]:
        """Return status and document of an answer."""
        self.asked.append(f"{method} {path}")
        if path == "/.well-known/openid-configuration":
            return 200, {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorise",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/keys",
            } | self.metadata
        if path == "/keys":
            return 200, KeySet([self.key]).as_dict(private=False)
        if path == "/token":
            return self._token(
                {name: values[0] for name, values in parse_qs(body).items()}, authorization
            )
        return 404, {}

    def _token(self, asked: dict[str, str], authorization: str) -> tuple[int, Any]:
        known = base64.b64encode(f"{CLIENT}:a%20secret%3A%20of%20the%20client".encode()).decode()
        began = self.codes.pop(asked.get("code", ""), None)
        if began is None or authorization != f"Basic {known}":
            return 400, {"error": "invalid_grant"}
        digest = hashlib.sha256(asked["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if challenge != began["code_challenge"] or asked["redirect_uri"] != began["redirect_uri"]:
            return 400, {"error": "invalid_grant"}
        claims = {
            "iss": self.issuer,
            "aud": CLIENT,
            "sub": "subject-1",
            "nonce": began["nonce"],
            "iat": self.now,
            "exp": self.now + 300,
            "email": "customer-1@example.com",
            "email_verified": True,
        } | self.claims
        claims = {name: value for name, value in claims.items() if value is not None}
        header = {"alg": self.algorithm, "kid": "1"}
        token = jwt.encode(header, claims, self.signing_key, algorithms=[self.algorithm])
        return 200, {"id_token": token, "access_token": "x", "token_type": "Bearer"}


@contextmanager
def started_provider() -> Iterator[OpenidProvider]:
    """Run a provider."""
    provider = OpenidProvider()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._respond("")

        def do_POST(self) -> None:
            self._respond(self.rfile.read(int(self.headers["Content-Length"])).decode())

        def _respond(self, body: str) -> None:
            authorization = self.headers.get("Authorization", "")
            status, document = provider.answer(self.command, self.path, body, authorization)
            content = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        provider.issuer = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield provider
        server.shutdown()
        thread.join()
