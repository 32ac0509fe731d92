"""Reading XML that a stranger wrote: no document type, no entities, no network, bounded."""

from collections.abc import Mapping
from typing import Any, Protocol

from lxml import etree

from slapos.protocol.errors import MalformedDocument

#: A node with 1,000 busy partitions is about 3 MB.
MAXIMUM_BYTES = 64 * 1024 * 1024
MAXIMUM_DEPTH = 100
DOCTYPE_REFUSED = "a document type declaration is refused"


def read_xml(document: bytes) -> etree._Element:
    """Return the root element of a document.

    Raises MalformedDocument when it is not well-formed, larger than MAXIMUM_BYTES, deeper than
    MAXIMUM_DEPTH, or declares a document type.
    """
    _check_size(document)
    try:
        root = etree.fromstring(document, _parser())
    except (etree.XMLSyntaxError, ValueError) as error:
        raise MalformedDocument(f"this is not well-formed XML: {error}") from error
    doctype: str = root.getroottree().docinfo.doctype or ""  # type: ignore[union-attr]
    if doctype:
        raise MalformedDocument(DOCTYPE_REFUSED)
    _check_depths(root)
    return root


class Builder(Protocol):
    """What is told of a document while it is read, so that no tree of it is ever in memory."""

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        """Take in that an element begins."""
        ...

    def data(self, text: str) -> None:
        """Take a piece of text."""
        ...

    def end(self, tag: str) -> None:
        """Take in that an element ends."""
        ...


def build_from_xml(document: bytes, builder: Builder) -> None:
    """Tell `builder` of a document from its beginning to its end, comments left out.

    Raises MalformedDocument as `read_xml` does, and what the builder raises.
    """
    _check_size(document)
    parser = _parser(target=_Guard(builder))
    try:
        etree.fromstring(document, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise MalformedDocument(f"this is not well-formed XML: {error}") from error


class _Guard:
    """Passes on what is read, within bounds."""

    def __init__(self, builder: Builder) -> None:
        self._builder = builder
        self._depth = 0
        self.data = builder.data

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self._depth += 1
        _check_depth(self._depth)
        self._builder.start(tag, attributes)

    def end(self, tag: str) -> None:
        self._depth -= 1
        self._builder.end(tag)

    def doctype(self, *_: object) -> None:
        raise MalformedDocument(DOCTYPE_REFUSED)

    def close(self) -> None:
        """Do nothing: the builder has it all."""


def _parser(target: Any = None) -> etree.XMLParser:
    return etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
        target=target,
    )


def _check_size(document: bytes) -> None:
    if len(document) > MAXIMUM_BYTES:
        raise MalformedDocument(
            f"the document has {len(document)} bytes, {MAXIMUM_BYTES} are allowed"
        )


def _check_depths(root: etree._Element) -> None:
    depth = 0
    for event, _element in etree.iterwalk(root, events=("start", "end")):
        depth += 1 if event == "start" else -1
        _check_depth(depth)


def _check_depth(depth: int) -> None:
    if depth > MAXIMUM_DEPTH:
        raise MalformedDocument(f"the document is deeper than {MAXIMUM_DEPTH} elements")
