"""Parameters of a request: read from words or a file, checked, and made ready to travel."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from slapos.protocol.descriptor import (
    DEFAULT_TYPE,
    BrokenDescriptor,
    Fetch,
    Serialisation,
    read_descriptor,
)
from slapos.protocol.errors import InvalidRequest, MalformedDocument, NotFound
from slapos.protocol.instance_xml import JSON_KEY, from_instance_xml, unwrap_json, wrap_json
from slapos.protocol.json_reader import load_json
from slapos.protocol.parameter_schema import ParameterSchema, Problem


class InvalidParameters(InvalidRequest):
    """Parameters do not fit the release's schema."""

    code = "invalid_parameters"

    def __init__(self, schema: str, problems: Sequence[Problem]) -> None:
        lines = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(
            "nothing was requested, because the parameters do not fit the release's schema:\n"
            f"{lines}\n  (the schema is {schema.removeprefix('file://')}; "
            "--no-check requests nevertheless)"
        )
        self.details: dict[str, Any] = {"schema": schema, "problems": [asdict(p) for p in problems]}


@dataclass(frozen=True, kw_only=True)
class GivenParameters:
    """What the caller gave.

    `words` are texts that may stand for other types; `values` have the types of their file; what
    is `serialised` (an XML file) already is as it travels.
    """

    words: dict[str, str] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    serialised: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class PreparedRequest:
    """What is sent, and what the caller should know (`notes`)."""

    software_type: str
    parameters: dict[str, Any]
    notes: tuple[str, ...] = ()


def key_and_value(word: str) -> tuple[str, str]:
    """Read `key=value`, for argparse."""
    key, equals, value = word.partition("=")
    if not equals or not key:
        raise argparse.ArgumentTypeError(f"{word!r} is not of the form key=value")
    return key, value


def collect(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return the pairs as a dictionary; raises InvalidRequest when a key comes twice."""
    values: dict[str, str] = {}
    for key, value in pairs:
        if key in values:
            raise InvalidRequest(f"{key!r} is given twice: {values[key]!r} and {value!r}")
        values[key] = value
    return values


def read_parameters_file(path: Path) -> GivenParameters:
    """Read .yaml and .yml as YAML, .xml as instance XML, anything else as JSON.

    Raises InvalidRequest when it cannot be read or does not hold parameters by name.
    """
    try:
        text = path.read_text(encoding="utf-8")
        match path.suffix:
            case ".xml":
                return GivenParameters(serialised=dict(from_instance_xml(text)))
            case ".yaml" | ".yml":
                # Through JSON, so that what only YAML knows (a date) is found here.
                values = json.loads(json.dumps(yaml.safe_load(text)))
            case _:
                values = load_json(text)
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, yaml.YAMLError, MalformedDocument) as error:
        raise InvalidRequest(f"{path} does not hold parameters: {error}") from error
    if not isinstance(values, dict):
        raise InvalidRequest(f"{path} does not hold parameters: it must be an object of them")
    if set(values) == {JSON_KEY}:
        return GivenParameters(serialised=values)
    return GivenParameters(values=values)


def prepare(
    given: GivenParameters,
    *,
    release: str,
    software_type: str | None,
    shared: bool,
    forced: Serialisation | None,
    check: bool,
    fetch: Fetch,
) -> PreparedRequest:
    """Return the request's type and parameters as they travel.

    The release's descriptor says how they travel and what they may be; without a usable one they
    are sent as they are, with a note. Raises InvalidParameters, and NotFound for an unknown type,
    unless `check` is off; InvalidRequest when nothing says how a file's values travel.
    """
    asked = software_type or DEFAULT_TYPE
    notes: list[str] = []
    kind, schema = None, None
    try:
        kind = read_descriptor(release, fetch).find_type(asked, shared=shared)
        if kind.request_schema:
            schema = ParameterSchema(kind.request_schema, fetch)
            schema.problems({})  # to know now whether the schema can be used
    except BrokenDescriptor as error:
        notes.append(f"the parameters are not checked: {error}")
        schema = None
    except NotFound as error:
        if check:
            raise
        notes.append(str(error))
    values = _meant(given, schema)
    problems = schema.problems(values) if schema else []
    if problems and schema and check:
        raise InvalidParameters(schema.url, problems)
    notes.extend(map(str, problems))
    serialisation = forced or (kind.serialisation if kind else None)
    return PreparedRequest(
        software_type=kind.software_type if kind else asked,
        parameters=_serialised(given, values, serialisation),
        notes=tuple(notes),
    )


def _meant(given: GivenParameters, schema: ParameterSchema | None) -> dict[str, Any]:
    """Return the values with the types that the schema wants."""
    if given.serialised is not None and JSON_KEY in given.serialised:
        wrapped = given.serialised[JSON_KEY]
        try:
            values = unwrap_json(given.serialised) if isinstance(wrapped, str) else wrapped
        except MalformedDocument as error:
            raise InvalidRequest(str(error)) from error
        if not isinstance(values, dict):
            raise InvalidRequest("the parameter '_' must hold a JSON object")
        return values
    words = given.words or given.serialised or {}
    texts = {key: value or "" for key, value in words.items()}
    return given.values or (schema.from_strings(texts) if schema else dict(texts))


def _serialised(
    given: GivenParameters, values: dict[str, Any], serialisation: Serialisation | None
) -> dict[str, Any]:
    if given.serialised is not None:
        wrapped = given.serialised.get(JSON_KEY)
        return given.serialised if isinstance(wrapped, str | None) else dict(wrap_json(wrapped))
    if not values:
        return {}
    if serialisation is Serialisation.JSON_IN_XML:
        return dict(wrap_json(values))
    if given.words:
        return dict(given.words)
    if serialisation is None:
        raise InvalidRequest(
            "nothing says how the values of the file travel: the release has no usable "
            "software.cfg.json; say --force-serialisation xml or json-in-xml"
        )
    return {key: v if isinstance(v, str) else json.dumps(v) for key, v in values.items()}
