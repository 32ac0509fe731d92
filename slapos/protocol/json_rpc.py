"""The JSON-RPC calls v0: which there are, and what goes in and comes out (slap-master.md §2).

They are described in `json_rpc.json`, one JSON Schema each for the request and for the answer.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from slapos.protocol.errors import InvalidRequest, MasterFailed

#: What a call answers, with HTTP status 200, while an instance has no partition yet.
NOT_READY = {
    "message": "Software Instance Not Ready",
    "name": "SoftwareInstanceNotReady",
    "status": 102,
}


@dataclass(frozen=True)
class Call:
    """One call; `name` is also its path below the master's address."""

    name: str
    description: str
    request: Draft202012Validator
    answer: Draft202012Validator

    def check_request(self, body: Any) -> None:
        """Raise InvalidRequest, which names the field, when `body` is no request of this call."""
        reason = _reason(self.request, body)
        if reason:
            raise InvalidRequest(reason)

    def check_answer(self, body: Any) -> None:
        """Raise MasterFailed when `body` is no answer to this call."""
        reason = _reason(self.answer, body)
        if reason:
            raise MasterFailed(f"the answer to {self.name} makes no sense: {reason}")


@cache
def calls() -> Mapping[str, Call]:
    """Return every call by its name."""
    text = files("slapos.protocol").joinpath("json_rpc.json").read_text(encoding="utf-8")
    document = json.loads(text)
    shared = {"$defs": document["$defs"]}
    return {
        name: Call(
            name,
            described["description"],
            Draft202012Validator(described["request"] | shared),
            Draft202012Validator(described["answer"] | shared),
        )
        for name, described in document["calls"].items()
    }


def _reason(validator: Draft202012Validator, body: Any) -> str:
    error = best_match(validator.iter_errors(body))
    if error is None:
        return ""
    place = "/".join(str(part) for part in error.absolute_path)
    return f"{error.message} (at {place})" if place else error.message
