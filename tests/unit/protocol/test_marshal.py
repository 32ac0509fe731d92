from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slapos.protocol import xml_reader
from slapos.protocol.errors import MalformedDocument
from slapos.protocol.marshal import Marshalled, dumps, loads

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner),
        st.lists(inner).map(tuple),
        st.dictionaries(st.text(st.characters(codec="ascii", min_codepoint=32)), inner),
    ),
    max_leaves=20,
)


@given(VALUES)
def test_a_value_comes_back_as_it_was(value: Any) -> None:
    assert loads(dumps(value)) == value


def test_the_document_is_the_one_that_xml_marshaller_writes() -> None:
    """Taken from the output of xml_marshaller 1.0.2 for the same values."""
    parameters = {
        "a&b<": 'x&y<é"',
        "n": 1,
        "f": 1.5,
        "t": (1, 2),
        "s": {1},
        "none": None,
        "b": True,
    }
    partition = Marshalled(
        "ComputerPartition",
        ("local", "p0", None),
        {"_parameters": parameters, "_again": parameters},
    )
    assert dumps(partition).decode() == (
        '<marshal><object id="i2" module="slapos.slap.slap" class="ComputerPartition">'
        "<tuple><string>local</string><string>p0</string><none/></tuple>"
        '<dictionary id="i3"><string>_again</string><dictionary id="i4">'
        '<string>a&amp;amp;b&amp;lt;</string><string>x&amp;amp;y&amp;lt;&#233;"</string>'
        "<string>b</string><bool>1</bool><string>f</string><float>1.5</float>"
        "<string>n</string><int>1</int><string>none</string><none/>"
        '<string>s</string><set id="i5"><int>1</int></set>'
        "<string>t</string><tuple><int>1</int><int>2</int></tuple></dictionary>"
        '<string>_parameters</string><reference id="i4"/></dictionary></object></marshal>'
    )


def test_a_repeated_object_comes_back_as_one() -> None:
    shared = {"x": 1}
    value = loads(dumps([shared, shared]))
    assert value[0] is value[1]


def test_names_that_come_again_are_in_memory_once() -> None:
    first, second = loads(dumps([{"timestamp": "1"}, {"timestamp": "2"}]))
    assert next(iter(first)) is next(iter(second))


def test_a_list_may_hold_itself() -> None:
    value = loads(b'<marshal><list id="i2"><reference id="i2"/></list></marshal>')
    assert value[0] is value


def test_text_is_whole_also_around_comments_and_character_references() -> None:
    document = b"<marshal>\n <string>a<!-- x -->b&#233;<?y z?>&amp;lt;c</string>\n</marshal>"
    assert loads(document) == "ab\u00e9<c"


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b"", "not well-formed"),
        (b"hello", "not well-formed"),
        (b"<marshal/>", "one value"),
        (b"<other><int>1</int></other>", "one value"),
        (b"<marshal><int>one</int></marshal>", "'one'"),
        (b"<marshal><code>x</code></marshal>", "no element"),
        (b"<marshal><string>a<b/></string></marshal>", "no other elements"),
        (b'<marshal><reference id="i9"/></marshal>', "nothing before"),
        (b"<marshal><dictionary><string>k</string></dictionary></marshal>", "without a value"),
        (b"<marshal><dictionary><list/><int>1</int></dictionary></marshal>", "cannot be one"),
        (b"<marshal><set><list/></set></marshal>", "cannot be in a set"),
        (
            b'<marshal><object module="os" class="system"><tuple/><dictionary/></object></marshal>',
            "os.system is refused",
        ),
        (
            b'<marshal><object module="slapos.slap.slap" class="Supply"><tuple/><dictionary/>'
            b"</object></marshal>",
            "refused",
        ),
        (b'<!DOCTYPE m [<!ENTITY e "x">]><marshal><string>&e;</string></marshal>', "document type"),
        (
            b'<!DOCTYPE m SYSTEM "file:///etc/passwd"><marshal><none/></marshal>',
            "document type",
        ),
        (b"<marshal>" + b"<list>" * 200 + b"</list>" * 200 + b"</marshal>", "deeper"),
    ],
)
def test_a_document_that_is_none_is_refused_with_its_reason(document: bytes, reason: str) -> None:
    with pytest.raises(MalformedDocument, match=reason):
        loads(document)


def test_a_document_that_is_too_large_is_refused_unread() -> None:
    with pytest.raises(MalformedDocument, match="are allowed"):
        loads(b" " * (xml_reader.MAXIMUM_BYTES + 1))


@given(st.binary(max_size=200))
def test_no_bytes_at_all_do_anything_but_be_refused(document: bytes) -> None:
    with pytest.raises(MalformedDocument):
        loads(document)


@pytest.mark.parametrize("value", [object(), b"bytes", "\x00", Marshalled("Supply")])
def test_what_cannot_travel_is_refused(value: Any) -> None:
    with pytest.raises(MalformedDocument):
        dumps(value)
