"""What a node tells in one go, by `POST /v1/nodes/<reference>/reports`: the shape of it.

It is described in `node_reports.json`, one JSON Schema for the batch and one for each kind.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from slapos.protocol.errors import InvalidRequest

#: How many reports a batch may have, and how many bytes.
LARGEST_BATCH = 100
LARGEST_BODY = 1024 * 1024
#: Characters of what is wrong that are told: the end of it.
SHOWN = 300

Report = Mapping[str, Any]

_DOCUMENT: Mapping[str, Any] = json.loads(
    files("slapos.protocol").joinpath("node_reports.json").read_text(encoding="utf-8")
)
#: A batch as JSON Schema; the kinds of reports have their own, and are checked one by one.
BATCH: Mapping[str, Any] = _DOCUMENT["batch"]


@dataclass(frozen=True)
class Refusal:
    """Why a report was not taken; sent again, it would be refused again."""

    id: str
    code: str
    message: str


@dataclass(frozen=True)
class Receipt:
    """What became of each report of a batch."""

    taken: tuple[str, ...]
    refused: tuple[Refusal, ...]

    def to_json(self) -> dict[str, Any]:
        """Return what goes over the wire."""
        return {"taken": list(self.taken), "refused": [vars(each) for each in self.refused]}


def read_batch(body: Any) -> Sequence[Report]:
    """Return the reports of a batch, each with an `id`; raises InvalidRequest."""
    _check(_schemas()[""], body)
    reports: Sequence[Report] = body["reports"]
    if len(reports) > LARGEST_BATCH:
        raise InvalidRequest(
            f"{len(reports)} reports come in one go; at most {LARGEST_BATCH} are taken"
        )
    return reports


def check_report(report: Report) -> None:
    """Raise InvalidRequest unless this is a report of a kind that there is."""
    kind = report.get("kind")
    if not isinstance(kind, str) or kind not in _schemas():
        known = ", ".join(sorted(filter(None, _schemas())))
        raise InvalidRequest(f"there is no kind {kind!r} of report; there are: {known}")
    _check(_schemas()[kind], report)


def _check(schema: Draft202012Validator, value: Any) -> None:
    error = best_match(schema.iter_errors(value))
    if error is not None:
        place = "/".join(map(str, error.absolute_path))
        # The value comes first in a message, and may be long.
        message = error.message[-SHOWN:]
        raise InvalidRequest(f"{message} (at {place})" if place else message)


@cache
def _schemas() -> Mapping[str, Draft202012Validator]:
    """Return the schema of each kind, and that of the batch as the kind ""."""
    found = {"": BATCH, **_DOCUMENT["kinds"]}
    return {kind: Draft202012Validator(schema) for kind, schema in found.items()}
