"""What a node tells in one go, by `POST /v1/nodes/<reference>/reports`: the shape of it.

It is described in `node_reports.json`, one JSON Schema for the batch and one for each kind.
"""

import json
import re
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

_ID = re.compile("[0-9a-f]{32}")
#: Names of partitions as they are; any other is looked at more closely.
_PLAIN_NAME = re.compile("[A-Za-z0-9._-]{1,64}")

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
    if not _is_plain_batch(body):
        _check(_schemas()[""], body)
    reports: Sequence[Report] = body["reports"]
    if len(reports) > LARGEST_BATCH:
        raise InvalidRequest(
            f"{len(reports)} reports come in one go; at most {LARGEST_BATCH} are taken"
        )
    return reports


def is_plain_state(report: Report) -> bool:
    """Return whether a report of an instance's state is right at first sight.

    That takes a hundredth of the time of its schema, which says the same of it; one that is not
    plain may still be right.
    """
    partition, since = report.get("partition"), report.get("since")
    state, error, timestamp = report.get("state"), report.get("error"), report.get("timestamp")
    return (
        report.get("kind") == "instance"
        and isinstance(partition, str)
        and _PLAIN_NAME.fullmatch(partition) is not None
        and (state is None or state in ("started", "stopped"))
        and (error is None or isinstance(error, str))
        and bool(state or error)
        and (timestamp is None or isinstance(timestamp, str))
        and (since is None or isinstance(since, str))
    )


def check_report(report: Report) -> None:
    """Raise InvalidRequest unless this is a report of a kind that there is."""
    kind = report.get("kind")
    if not isinstance(kind, str) or kind not in _schemas():
        known = ", ".join(sorted(filter(None, _schemas())))
        raise InvalidRequest(f"there is no kind {kind!r} of report; there are: {known}")
    _check(_schemas()[kind], report)


def _is_plain_batch(body: Any) -> bool:
    """Return whether a batch is right at first sight, as most are."""
    return (
        isinstance(body, dict)
        and isinstance(body.get("reports"), list)
        and all(
            isinstance(each, dict)
            and isinstance(each.get("id"), str)
            and _ID.fullmatch(each["id"]) is not None
            and isinstance(each.get("at", ""), str)
            and isinstance(each.get("kind", ""), str)
            for each in body["reports"]
        )
    )


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
