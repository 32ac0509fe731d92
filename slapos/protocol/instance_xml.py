"""Instance XML: parameters, filters and connection values as `<instance><parameter id="…">`.

Format: slap-master.md §1.0; "json-in-xml" is one parameter `_` whose text is a JSON document.
"""

import json
from typing import Any

from lxml import etree

from slapos.protocol.errors import MalformedDocument
from slapos.protocol.json_reader import load_json
from slapos.protocol.xml_reader import read_xml

#: The parameter that holds a JSON document in the serialisation "json-in-xml".
JSON_KEY = "_"


def to_instance_xml(values: dict[str, Any]) -> str:
    """Return the document of `values`, keys sorted, every value as text.

    Raises MalformedDocument when a value has a character that XML cannot carry.
    """
    root = etree.Element("instance")
    try:
        for key in sorted(values):
            value = values[key]
            etree.SubElement(root, "parameter", id=str(key)).text = (
                value if isinstance(value, str) else str(value)
            )
    except ValueError as error:
        raise MalformedDocument(f"a parameter cannot be written as XML: {error}") from error
    document: bytes = etree.tostring(
        root, pretty_print=True, xml_declaration=True, encoding="utf-8"
    )
    return document.decode()


def from_instance_xml(document: str | bytes | None) -> dict[str, str | None]:
    """Return the values of a document; an empty element is None, a repeated id is joined by spaces.

    No document at all is no values. Raises MalformedDocument.
    """
    if not document:
        return {}
    root = read_xml(document.encode() if isinstance(document, str) else document)
    if root.tag != "instance":
        raise MalformedDocument(f"instance XML begins with <instance>, not <{root.tag}>")
    values: dict[str, str | None] = {}
    for element in root.iter("parameter"):
        key = element.get("id")
        if key is None:
            raise MalformedDocument("a <parameter> has no id")
        value = element.text
        if values.get(key) is not None:
            value = f"{values[key]} {value}"
        values[key] = value
    return values


def wrap_json(value: Any) -> dict[str, str]:
    """Return the one parameter `_` that carries a JSON value."""
    return {JSON_KEY: json.dumps(value, sort_keys=True, indent=2)}


def unwrap_json(values: dict[str, Any]) -> Any:
    """Return what `wrap_json` wrapped, or `values` themselves when they are not wrapped.

    Raises MalformedDocument when the parameter `_` holds no JSON.
    """
    if JSON_KEY not in values:
        return values
    try:
        return load_json(values[JSON_KEY] or "{}")
    except (ValueError, TypeError) as error:
        raise MalformedDocument(f"the parameter '_' does not hold JSON: {error}") from error
