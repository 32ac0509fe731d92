"""SLAP XML: the documents that `slap_tool` and its clients exchange (slap-master.md §1.0).

The format is xml_marshaller's. A document is read into plain values, and each of the four classes
it may name into `Marshalled`: nothing that a document names is ever imported or called.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from xml.sax.saxutils import escape, unescape

from lxml import etree

from slapos.protocol.errors import MalformedDocument
from slapos.protocol.xml_reader import read_xml

MODULE = "slapos.slap.slap"
CLASSES = ("Computer", "ComputerPartition", "SoftwareRelease", "SoftwareInstance")


@dataclass(frozen=True)
class Marshalled:
    """An object of one of the four classes: its name, constructor arguments and attributes."""

    class_name: str
    arguments: tuple[Any, ...] = ()
    state: dict[str, Any] = field(default_factory=dict)


def dumps(value: Any) -> bytes:
    """Return the document of a value made of None, bool, int, float, str, tuple, list, set, dict
    and Marshalled.

    Raises MalformedDocument for anything else, and for text that XML cannot carry.
    """
    root = etree.Element("marshal")
    try:
        _Writer().write(root, value)
    except ValueError as error:  # lxml: a control character, for instance
        raise MalformedDocument(f"this cannot be written as XML: {error}") from error
    return etree.tostring(root)


def loads(document: bytes) -> Any:
    """Return the value of a document.

    Raises MalformedDocument when it is no such document, is too large or too deep, has a document
    type or entities, or names a class outside the four.
    """
    root = read_xml(document)
    if root.tag != "marshal" or len(root) != 1:
        raise MalformedDocument("a SLAP document is one value inside <marshal>")
    return _Reader().read(root[0])


class _Writer:
    """Writes values below an element, numbering what can be referred to from i2 on."""

    def __init__(self) -> None:
        self._last = 1
        # The value is kept beside its number, so that its id() is not given to another one.
        self._written: dict[int, tuple[str, Any]] = {}

    def write(self, parent: etree._Element, value: Any) -> None:
        """Append the element of `value`."""
        if isinstance(value, Marshalled | dict | list | set | frozenset):
            self._container(parent, value)
        elif isinstance(value, tuple):
            element = etree.SubElement(parent, "tuple")
            for item in value:
                self.write(element, item)
        else:
            self._scalar(parent, value)

    def _scalar(self, parent: etree._Element, value: Any) -> None:
        match value:
            case None:
                etree.SubElement(parent, "none")
            case bool():
                etree.SubElement(parent, "bool").text = "1" if value else "0"
            case int():
                etree.SubElement(parent, "int").text = str(value)
            case float():
                etree.SubElement(parent, "float").text = repr(value)
            case str():
                # Escaped here and once more by the XML writer: readers expect it so.
                etree.SubElement(parent, "string").text = escape(value)
            case _:
                raise MalformedDocument(f"a {type(value).__name__} cannot travel in SLAP XML")

    def _container(self, parent: etree._Element, value: Any) -> None:
        if id(value) in self._written:
            etree.SubElement(parent, "reference", id=self._written[id(value)][0])
            return
        self._last += 1
        number = f"i{self._last}"
        self._written[id(value)] = (number, value)
        match value:
            case Marshalled():
                if value.class_name not in CLASSES:
                    raise MalformedDocument(f"{value.class_name} is no class of SLAP XML")
                attributes = {"id": number, "module": MODULE, "class": value.class_name}
                element = etree.SubElement(parent, "object", attributes)
                self.write(element, value.arguments)
                self.write(element, value.state)
            case dict():
                element = etree.SubElement(parent, "dictionary", id=number)
                for key, item in sorted(value.items(), key=_order):
                    self.write(element, key)
                    self.write(element, item)
            case list():
                element = etree.SubElement(parent, "list", id=number)
                for item in value:
                    self.write(element, item)
            case _:
                element = etree.SubElement(parent, "set", id=number)
                for item in sorted(value, key=repr):
                    self.write(element, item)


def _order(item: tuple[Any, Any]) -> tuple[bool, str]:
    key = item[0]
    return (not isinstance(key, str), key if isinstance(key, str) else repr(key))


class _Reader:
    """Reads values, remembering those that can be referred to."""

    def __init__(self) -> None:
        self._known: dict[str, Any] = {}
        self._containers: dict[str, Callable[[etree._Element], Any]] = {
            "tuple": self._tuple,
            "list": self._list,
            "set": self._set,
            "dictionary": self._dictionary,
            "object": self._object,
            "reference": self._reference,
        }

    def read(self, element: etree._Element) -> Any:
        """Return the value of one element."""
        tag = str(element.tag)
        if tag in self._containers:
            return self._containers[tag](element)
        if len(element):
            raise MalformedDocument(f"<{tag}> holds no other elements in SLAP XML")
        if tag not in _SCALARS:
            raise MalformedDocument(f"<{tag}> is no element of SLAP XML")
        text = element.text or ""
        try:
            return _SCALARS[tag](text)
        except ValueError as error:
            raise MalformedDocument(f"<{tag}> holds {text[:40]!r}") from error

    def _remember(self, element: etree._Element, value: Any) -> None:
        number = element.get("id")
        if number is not None:
            self._known[number] = value

    def _tuple(self, element: etree._Element) -> tuple[Any, ...]:
        return tuple(self.read(child) for child in element)

    def _list(self, element: etree._Element) -> list[Any]:
        value: list[Any] = []
        self._remember(element, value)
        value.extend(self.read(child) for child in element)
        return value

    def _set(self, element: etree._Element) -> set[Any]:
        try:
            value = {self.read(child) for child in element}
        except TypeError as error:
            raise MalformedDocument("a <set> holds something that cannot be in a set") from error
        self._remember(element, value)
        return value

    def _dictionary(self, element: etree._Element) -> dict[Any, Any]:
        value: dict[Any, Any] = {}
        self._remember(element, value)
        children = list(element)
        if len(children) % 2:
            raise MalformedDocument("a <dictionary> has a key without a value")
        for key_element, item in _pairs(children):
            key = self.read(key_element)
            try:
                value[key] = self.read(item)
            except TypeError as error:
                raise MalformedDocument("a <dictionary> has a key that cannot be one") from error
        return value

    def _object(self, element: etree._Element) -> Marshalled:
        module, name = element.get("module"), element.get("class")
        if module != MODULE or name not in CLASSES:
            raise MalformedDocument(f"the class {module}.{name} is refused")
        if len(element) != 2:
            raise MalformedDocument("an <object> is its arguments and its attributes")
        arguments, state = self.read(element[0]), self.read(element[1])
        if not isinstance(arguments, tuple) or not isinstance(state, dict):
            raise MalformedDocument("an <object> is a <tuple> and a <dictionary>")
        value = Marshalled(name, arguments, state)
        self._remember(element, value)
        return value

    def _reference(self, element: etree._Element) -> Any:
        try:
            return self._known[element.get("id", "")]
        except KeyError:
            raise MalformedDocument("a <reference> to nothing before it") from None


def _pairs(items: list[etree._Element]) -> Iterator[tuple[etree._Element, etree._Element]]:
    return zip(items[::2], items[1::2], strict=True)


_SCALARS: dict[str, Callable[[str], Any]] = {
    "none": lambda _text: None,
    "bool": lambda text: bool(int(text)),
    "int": int,
    "long": int,
    "float": float,
    "complex": complex,
    "string": unescape,
    "unicode": unescape,
}
