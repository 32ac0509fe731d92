"""Reading XML that a stranger wrote: no document type, no entities, no network, bounded."""

from lxml import etree

from slapos.protocol.errors import MalformedDocument

#: A node with 1,000 busy partitions is about 3 MB.
MAXIMUM_BYTES = 64 * 1024 * 1024
MAXIMUM_DEPTH = 100


def read_xml(document: bytes) -> etree._Element:
    """Return the root element of a document.

    Raises MalformedDocument when it is not well-formed, larger than MAXIMUM_BYTES, deeper than
    MAXIMUM_DEPTH, or declares a document type.
    """
    if len(document) > MAXIMUM_BYTES:
        raise MalformedDocument(
            f"the document has {len(document)} bytes, {MAXIMUM_BYTES} are allowed"
        )
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(document, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise MalformedDocument(f"this is not well-formed XML: {error}") from error
    doctype: str = root.getroottree().docinfo.doctype or ""  # type: ignore[union-attr]
    if doctype:
        raise MalformedDocument("a document type declaration is refused")
    _check_depth(root)
    return root


def _check_depth(root: etree._Element) -> None:
    depth = 0
    for event, _element in etree.iterwalk(root, events=("start", "end")):
        depth += 1 if event == "start" else -1
        if depth > MAXIMUM_DEPTH:
            raise MalformedDocument(f"the document is deeper than {MAXIMUM_DEPTH} elements")
