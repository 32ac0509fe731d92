"""Consumption documents: what an instance used, and the journal that a node sends of it.

Facts about both formats: slap-node.md §3.11; what is not of that shape is not sent.
"""

import math
import re
from collections.abc import Sequence

from lxml import etree

from slapos.protocol.errors import MalformedDocument
from slapos.protocol.xml_reader import read_xml

_MOVEMENT = re.compile(r"resource (title )?(reference )?quantity price VAT (category )*")
_TRANSACTION = re.compile(
    r"(title )?start_date stop_date reference currency payment_mode (category )*"
    r"(arrow )+(movement )+"
)


def check_consumption(document: bytes) -> None:
    """See that a document is the consumption of a partition. Raises MalformedDocument."""
    root = read_xml(document)
    if root.tag != "consumption" or not len(root):
        raise MalformedDocument("it is no <consumption> with at least one <movement>")
    for movement in root:
        _check_movement(movement)


def check_journal(document: bytes) -> None:
    """See that a document is a journal of transactions. Raises MalformedDocument."""
    root = read_xml(document)
    if root.tag != "journal" or not len(root):
        raise MalformedDocument("it is no <journal> with at least one <transaction>")
    for transaction in root:
        if transaction.tag != "transaction" or "type" not in transaction.attrib:
            raise MalformedDocument("a journal has <transaction type=…> and nothing else")
        _check_order(transaction, _TRANSACTION)
        for movement in transaction.findall("movement"):
            _check_movement(movement)


def _check_movement(movement: etree._Element) -> None:
    if movement.tag != "movement":
        raise MalformedDocument(f"<{movement.tag}> stands where a <movement> has to be")
    _check_order(movement, _MOVEMENT)
    for name in ("quantity", "price"):
        text = movement.findtext(name) or ""
        try:
            is_number = math.isfinite(float(text))
        except ValueError:
            is_number = False
        if not is_number:
            raise MalformedDocument(f"the {name} {text!r} is no number")


def _check_order(element: etree._Element, order: re.Pattern[str]) -> None:
    names = "".join(f"{child.tag} " for child in element)
    if not order.fullmatch(names):
        raise MalformedDocument(f"a <{element.tag}> cannot be made of: {names or 'nothing'}")


def make_journals(
    node: str,
    moment: str,
    documents: Sequence[tuple[str, bytes]],
    *,
    largest: int,
    start: str = "",
) -> list[bytes]:
    """Return (partition, consumption) documents as journals; `moment` is when they were closed.

    The reference of a movement is its partition. A journal has no more than about `largest` bytes,
    unless a single movement has. `start` is when what they are about began.
    """
    journals: list[bytes] = []
    root, transaction, size = None, None, 0
    for partition, document in documents:
        for movement in read_xml(document).findall("movement"):
            more = len(etree.tostring(movement))
            if transaction is None or size + more > largest:
                journals += [] if root is None else [_written(root)]
                root, transaction = _begin_journal(node, moment, start)
                size = 0
            size += more
            copied = etree.SubElement(transaction, "movement")
            for child in movement:
                text = partition if child.tag == "reference" else child.text or ""
                etree.SubElement(copied, str(child.tag)).text = text
    return journals + ([] if root is None else [_written(root)])


def _begin_journal(node: str, moment: str, start: str) -> tuple[etree._Element, etree._Element]:
    root = etree.Element("journal")
    transaction = etree.SubElement(root, "transaction", type="Sale Packing List")
    for name, text in (
        ("title", "Resource consumptions"),
        ("start_date", start),
        ("stop_date", moment),
        ("reference", node),
        ("currency", ""),
        ("payment_mode", ""),
        ("category", ""),
    ):
        etree.SubElement(transaction, name).text = text
    arrow = etree.SubElement(transaction, "arrow", type="Administration")
    etree.SubElement(arrow, "source")
    etree.SubElement(arrow, "destination")
    return root, transaction


def _written(root: etree._Element) -> bytes:
    written: bytes = etree.tostring(root, xml_declaration=True, encoding="utf-8")
    return written
