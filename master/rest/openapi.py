"""The OpenAPI document, made from what the views declare."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from flask import Flask
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from werkzeug.routing import Rule

from slapos.master.http import PUBLIC, status_of
from slapos.master.identity.authentication import COOKIE
from slapos.master.rest.model import Answer, Body
from slapos.master.rest.operation import JSON, Described, Operation, operation_of
from slapos.protocol.errors import InvalidFields, SlapOSError

VERSION = "3.1.0"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
COMPONENT = "#/components/schemas/{model}"

_ARGUMENT = re.compile(r"<(?:[^:<>]+:)?([^<>]+)>")


class WrongField(Answer):
    """A field that cannot be used, and why."""

    field: str
    message: str


class Error(Answer):
    """Why something was not done: `error` is for programs, `message` for people."""

    error: str
    message: str
    fields: list[WrongField] | None = None


_Mode = tuple[type[BaseModel], Literal["validation", "serialization"]]
_References = Mapping[Any, dict[str, Any]]


#: The ways to say who one is, in a full master.
SECURITY: Mapping[str, Mapping[str, str]] = {
    "certificate": {"type": "mutualTLS"},
    "token": {"type": "http", "scheme": "bearer"},
    "access_token": {"type": "apiKey", "in": "header", "name": "X-Access-Token"},
    "session": {"type": "apiKey", "in": "cookie", "name": COOKIE},
}


def document(app: Flask, *, is_full: bool) -> dict[str, Any]:
    """Return the OpenAPI document of all operations of an application."""
    found = list(_operations(app))
    references, schemas = _schemas([operation for _, _, _, operation in found])
    paths: dict[str, dict[str, Any]] = {}
    for path, method, rule, operation in found:
        described = _describe(rule, method, operation, references)
        paths.setdefault(path, {})[method.lower()] = described
        if is_full and getattr(app.view_functions[rule.endpoint], PUBLIC, False):
            described["security"] = []
    secured: dict[str, Any] = {"securitySchemes": SECURITY} if is_full else {}
    return {
        "openapi": VERSION,
        "info": {
            "title": "SlapOS master",
            "version": "1",
            "description": "Services, nodes and what belongs to them.",
            "license": {"name": "GPL-3.0-or-later", "identifier": "GPL-3.0-or-later"},
        },
        "paths": paths,
        "security": [{name: []} for name in SECURITY] if is_full else [],
        "components": {"schemas": schemas, **secured},
    }


def _operations(app: Flask) -> Iterator[tuple[str, str, Rule, Operation]]:
    for rule in sorted(app.url_map.iter_rules(), key=lambda each: each.rule):
        operation = operation_of(app.view_functions[rule.endpoint])
        if operation is not None:
            path = _ARGUMENT.sub(r"{\1}", rule.rule)
            for method in METHODS:
                if method in (rule.methods or ()):
                    yield path, method, rule, operation


def _schemas(operations: list[Operation]) -> tuple[_References, dict[str, Any]]:
    """Return where the schema of each model is, and the schemas by name."""
    wanted: dict[_Mode, None] = {(Error, "serialization"): None}
    for operation in operations:
        if isinstance(operation.body, type):
            wanted[operation.body, "validation"] = None
        if isinstance(operation.answer, type):
            wanted[operation.answer, "serialization"] = None
    references, definitions = models_json_schema(list(wanted), ref_template=COMPONENT)
    return references, definitions["$defs"]


def _describe(
    rule: Rule, method: str, operation: Operation, references: _References
) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": f"{rule.endpoint.replace('.', '_')}_{method.lower()}",
        "summary": operation.summary,
        "tags": [rule.endpoint.partition(".")[0]],
        "parameters": [
            *_path_parameters(rule),
            *_query_parameters(operation),
            *_headers(method, operation),
        ],
        "responses": _responses(operation, method, references),
    }
    if operation.body is not None:
        content = _content(operation.body, "validation", references)
        described["requestBody"] = {"required": True, "content": content}
    return described


def _path_parameters(rule: Rule) -> Iterator[dict[str, Any]]:
    for name in _ARGUMENT.findall(rule.rule):
        kind = "integer" if f"<int:{name}>" in rule.rule else "string"
        yield {"name": name, "in": "path", "required": True, "schema": {"type": kind}}


def _query_parameters(operation: Operation) -> Iterator[dict[str, Any]]:
    if operation.query is None:
        return
    schema = operation.query.model_json_schema()
    for name, described in schema.get("properties", {}).items():
        told = _inlined(described, schema.get("$defs", {}))
        parameter = {"name": name, "in": "query", "required": name in schema.get("required", ())}
        description = told.pop("description", None)
        told.pop("title", None)
        yield parameter | ({"description": description} if description else {}) | {"schema": told}


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(schema, list):
        return [_inlined(each, definitions) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {name: _inlined(value, definitions) for name, value in schema.items()}


def _headers(method: str, operation: Operation) -> Iterator[dict[str, Any]]:
    told = {}
    if method == "GET":
        told["If-None-Match"] = "The tag of what you have: 304 if it is still so."
    if method == "POST":
        told["Idempotency-Key"] = "A random word of yours: the same request again is done once."
    if operation.matches:
        told["If-Match"] = "The tag of what you have read: 412 if it is not so any more."
    for name, description in told.items():
        schema = {"type": "string"}
        yield {"name": name, "in": "header", "description": description, "schema": schema}


def _responses(
    operation: Operation, method: str, references: _References
) -> dict[str, dict[str, Any]]:
    done: dict[str, Any] = {"description": "Done."}
    if operation.answer is not None:
        done["content"] = _content(operation.answer, "serialization", references)
    responses = {str(operation.status): done}
    if method == "GET":
        responses["304"] = {"description": "What you have is still so."}
    codes: dict[int, set[str]] = {}
    kinds: tuple[type[SlapOSError], ...] = (InvalidFields, *operation.errors)
    for error in kinds:
        codes.setdefault(status_of(error), set()).add(error.code)
    failed = {JSON: {"schema": references[Error, "serialization"]}}
    for status in sorted(codes):
        told = f"Refused: {', '.join(f'`{code}`' for code in sorted(codes[status]))}."
        responses[str(status)] = {"description": told, "content": failed}
    responses["default"] = {"description": "Anything else that went wrong.", "content": failed}
    return responses


def _content(
    shape: type[Body] | type[Answer] | Described, mode: str, references: _References
) -> dict[str, Any]:
    if isinstance(shape, Described):
        schema = shape.schema
        return {shape.content_type: {} if schema is None else {"schema": dict(schema)}}
    return {JSON: {"schema": references[shape, mode]}}
