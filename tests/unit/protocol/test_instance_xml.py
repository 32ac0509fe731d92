import pytest
from hypothesis import given
from hypothesis import strategies as st

from slapos.protocol.errors import MalformedDocument
from slapos.protocol.instance_xml import (
    from_instance_xml,
    to_instance_xml,
    unwrap_json,
    wrap_json,
)

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1)


@given(st.dictionaries(TEXT, TEXT))
def test_values_come_back_as_text(values: dict[str, str]) -> None:
    assert from_instance_xml(to_instance_xml(values)) == values


def test_the_document_is_the_one_that_readers_know() -> None:
    assert to_instance_xml({"b": "<&>", "a": 1}) == (
        "<?xml version='1.0' encoding='utf-8'?>\n"
        "<instance>\n"
        '  <parameter id="a">1</parameter>\n'
        '  <parameter id="b">&lt;&amp;&gt;</parameter>\n'
        "</instance>\n"
    )


def test_a_repeated_id_is_joined_and_an_empty_one_is_none() -> None:
    document = (
        '<instance><parameter id="a">1</parameter><parameter id="a">2</parameter>'
        '<parameter id="e"/></instance>'
    )
    assert from_instance_xml(document) == {"a": "1 2", "e": None}


def test_no_document_is_no_values() -> None:
    assert from_instance_xml(None) == from_instance_xml("") == {}


@pytest.mark.parametrize(
    "document", ["<instance", "<other/>", "<instance><parameter>x</parameter></instance>"]
)
def test_a_document_that_is_none_is_refused(document: str) -> None:
    with pytest.raises(MalformedDocument):
        from_instance_xml(document)


def test_json_travels_in_one_parameter() -> None:
    assert unwrap_json(wrap_json({"a": [1, None]})) == {"a": [1, None]}
    assert unwrap_json({"plain": "value"}) == {"plain": "value"}
    with pytest.raises(MalformedDocument, match="'_'"):
        unwrap_json({"_": "{"})
