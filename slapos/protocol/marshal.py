"""SLAP XML: the documents that `slap_tool` and its clients exchange (slap-master.md §1.0).

The format is xml_marshaller's. A document is read into plain values, and each of the four classes
it may name into `Marshalled`: nothing that a document names is ever imported or called.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from xml.sax.saxutils import escape, unescape

from lxml import etree

from slapos.protocol.errors import MalformedDocument
from slapos.protocol.xml_reader import build_from_xml

MODULE = "slapos.slap.slap"
CLASSES = ("Computer", "ComputerPartition", "SoftwareRelease", "SoftwareInstance")
NO_DOCUMENT = "a SLAP document is one value inside <marshal>"
#: Texts of so many characters at most are shared; longer ones hardly come twice.
LONGEST_SHARED = 200


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
    reader = _Reader()
    build_from_xml(document, reader)
    return reader.value


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


class _Open:
    """An element that has begun: what it holds so far."""

    __slots__ = ("attributes", "items", "tag", "text", "value")

    def __init__(self, tag: str, attributes: Mapping[str, str]) -> None:
        self.tag = tag
        self.attributes = attributes
        self.items: list[Any] = []
        self.text = ""
        #: What may be referred to from within: a list or a dictionary.
        self.value: Any = None


class _Reader:
    """Makes values of elements as they end, remembering those that can be referred to.

    Text that comes again, such as names of parameters, is in memory once: a thousand partitions are
    told of in nearly the same words.
    """

    def __init__(self) -> None:
        self.value: Any = None
        self._open: list[_Open] = []
        self._known: dict[str, Any] = {}
        self._texts: dict[str, str] = {}
        self._containers: dict[str, Callable[[_Open], Any]] = {
            "marshal": self._marshal,
            "tuple": self._tuple,
            "list": self._list,
            "set": self._set,
            "dictionary": self._dictionary,
            "object": self._object,
            "reference": self._reference,
        }

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        """Begin an element."""
        if self._open and self._open[-1].tag in _SCALARS:
            raise MalformedDocument(f"<{self._open[-1].tag}> holds no other elements in SLAP XML")
        if (tag == "marshal") != (not self._open):
            raise MalformedDocument(NO_DOCUMENT if not self._open else _unknown(tag))
        if tag not in self._containers and tag not in _SCALARS:
            raise MalformedDocument(_unknown(tag))
        element = _Open(tag, attributes)
        if tag in _GROWING:
            element.value = _GROWING[tag]()
            self._remember(element, element.value)
        self._open.append(element)

    def data(self, text: str) -> None:
        """Take a piece of text; that between elements means nothing."""
        if self._open[-1].tag in _SCALARS:
            self._open[-1].text += text

    def end(self, tag: str) -> None:
        """End an element, and hand its value to the one it is in."""
        element = self._open.pop()
        read = self._containers.get(tag)
        value = self._scalar(element) if read is None else read(element)
        if self._open:
            self._open[-1].items.append(value)
        else:
            self.value = value

    def _scalar(self, element: _Open) -> Any:
        try:
            value = _SCALARS[element.tag](element.text)
        except ValueError as error:
            raise MalformedDocument(f"<{element.tag}> holds {element.text[:40]!r}") from error
        if isinstance(value, str) and len(value) <= LONGEST_SHARED:
            return self._texts.setdefault(value, value)
        return value

    def _remember(self, element: _Open, value: Any) -> None:
        number = element.attributes.get("id")
        if number is not None:
            self._known[number] = value

    def _marshal(self, element: _Open) -> Any:
        if len(element.items) != 1:
            raise MalformedDocument(NO_DOCUMENT)
        return element.items[0]

    def _tuple(self, element: _Open) -> tuple[Any, ...]:
        return tuple(element.items)

    def _list(self, element: _Open) -> Any:
        element.value.extend(element.items)
        return element.value

    def _set(self, element: _Open) -> set[Any]:
        try:
            value = set(element.items)
        except TypeError as error:
            raise MalformedDocument("a <set> holds something that cannot be in a set") from error
        self._remember(element, value)
        return value

    def _dictionary(self, element: _Open) -> Any:
        if len(element.items) % 2:
            raise MalformedDocument("a <dictionary> has a key without a value")
        try:
            element.value.update(zip(element.items[::2], element.items[1::2], strict=True))
        except TypeError as error:
            raise MalformedDocument("a <dictionary> has a key that cannot be one") from error
        return element.value

    def _object(self, element: _Open) -> Marshalled:
        module, name = element.attributes.get("module"), element.attributes.get("class")
        if module != MODULE or name not in CLASSES:
            raise MalformedDocument(f"the class {module}.{name} is refused")
        if len(element.items) != 2:
            raise MalformedDocument("an <object> is its arguments and its attributes")
        arguments, state = element.items
        if not isinstance(arguments, tuple) or not isinstance(state, dict):
            raise MalformedDocument("an <object> is a <tuple> and a <dictionary>")
        value = Marshalled(name, arguments, state)
        self._remember(element, value)
        return value

    def _reference(self, element: _Open) -> Any:
        try:
            return self._known[element.attributes.get("id", "")]
        except KeyError:
            raise MalformedDocument("a <reference> to nothing before it") from None


def _unknown(tag: str) -> str:
    return f"<{tag}> is no element of SLAP XML"


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
#: What is known by its number before all of it was read.
_GROWING: dict[str, Callable[[], Any]] = {"list": list, "dictionary": dict}
