"""Asking twice, done once: `Idempotency-Key` on POST.

The first request with a key is done, and its answer is kept in the same transaction; the same
request again gets that answer. Of two at the same time the second one waits for the first: on
PostgreSQL for its row, on SQLite for the lock of every writer.
"""

import base64
import hashlib
import json
import re
from collections.abc import Callable
from datetime import timedelta

from cryptography.fernet import Fernet
from flask import Response, request

from slapos.master.http import Elsewhere, context
from slapos.master.rest.kept_answer import KeptAnswer
from slapos.protocol.errors import InvalidRequest, KeyReused

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
KEPT_FOR = timedelta(hours=24)

#: Long enough that nobody guesses it: it decrypts the answer.
_KEY = re.compile(r"[\x21-\x7e]{16,200}")


def once(perform: Callable[[], Response]) -> Response:
    """Return what `perform` answers, or what it has answered to the same request before."""
    key = request.headers.get(HEADER, "")
    if not _KEY.fullmatch(key):
        raise InvalidRequest(
            f"{HEADER} has to be 16 to 200 visible ASCII characters that nobody can guess, "
            "such as a random UUID"
        )
    session, now = context().session, context().clock.now()
    caller = context().caller
    digest = _digest(caller.kind, caller.name, key)
    asked = _digest(request.method, request.full_path, request.get_data())
    kept = session.get(KeptAnswer, digest)
    if kept is not None and kept.made_at < now - KEPT_FOR:
        session.delete(kept)
        session.flush()
        kept = None
    if kept is not None:
        if kept.request_digest != asked:
            raise KeyReused(f"this {HEADER} came with another request before: make a new one")
        assert kept.answer is not None, "an answer is kept in the transaction of its request"
        return _opened(key, kept.answer)
    kept = KeptAnswer(digest=digest, request_digest=asked, made_at=now)
    session.add(kept)
    session.flush()  # whoever comes with the same key now waits, and begins again
    response = perform()
    if isinstance(response, Elsewhere):
        raise InvalidRequest(f"this takes no {HEADER}: leave it out")
    if response.status_code < 400:
        kept.answer = _sealed(key, response)
        session.flush()
    return response


def _digest(*parts: str | bytes) -> str:
    found = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        found.update(b"%d:" % len(content) + content)
    return found.hexdigest()


def _cipher(key: str) -> Fernet:
    derived = hashlib.sha256(b"kept answer\0" + key.encode()).digest()
    return Fernet(base64.urlsafe_b64encode(derived))


def _sealed(key: str, response: Response) -> bytes:
    told = {
        "status": response.status_code,
        "headers": [(name, value) for name, value in response.headers if name != "Content-Length"],
        "content": base64.b64encode(response.get_data()).decode(),
    }
    return _cipher(key).encrypt(json.dumps(told).encode())


def _opened(key: str, answer: bytes) -> Response:
    told = json.loads(_cipher(key).decrypt(answer))
    response = Response(base64.b64decode(told["content"]), status=told["status"])
    response.headers.clear()
    for name, value in told["headers"]:
        response.headers.add(name, value)
    response.headers[REPLAYED] = "true"
    return response
