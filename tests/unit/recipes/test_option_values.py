"""Any Python value survives being the text of an option."""

from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slapos.protocol.errors import InvalidConfiguration
from slapos.recipes.buildout import dumps, loads
from slapos.recipes.buildout.values import inside_text, to_option

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
keys = st.integers() | st.text() | st.binary()
values = st.recursive(
    scalars.filter(lambda value: value not in (float("inf"), float("-inf"))) | st.sets(keys),
    lambda inner: st.lists(inner) | st.dictionaries(keys, inner) | st.tuples(inner, inner),
    max_leaves=10,
)


@given(values)
def test_what_is_dumped_is_loaded_again(value: Any) -> None:
    text = dumps(value)
    assert loads(text) == value
    assert type(loads(text)) is type(value)


@given(values)
def test_a_dumped_value_is_inert_in_a_profile(value: Any) -> None:
    text = dumps(value)
    assert text.isascii()
    assert text.isprintable()
    assert "$" not in text


@given(values)
def test_an_option_gives_back_what_was_put_in(value: Any) -> None:
    assert loads(to_option(value)) == value


def test_text_stays_as_it_is() -> None:
    assert to_option("plain ${x:y}") == "plain ${x:y}"


def test_text_that_looks_like_a_dumped_value_is_still_text() -> None:
    assert loads(to_option("!py![1]")) == "!py![1]"


def test_equal_sets_give_equal_text() -> None:
    assert dumps({"b", "a", "c"}) == dumps({"c", "b", "a"}) == "!py!{'a', 'b', 'c'}"


def test_a_word_of_an_enumeration_is_written_as_text() -> None:
    class Colour(StrEnum):
        RED = "red"

    assert loads(dumps([Colour.RED])) == ["red"]


@pytest.mark.parametrize("text", ["!py!__import__('os')", "!py!", "!py![1", "!py!x + 1"])
def test_nothing_but_a_literal_is_read(text: str) -> None:
    with pytest.raises(InvalidConfiguration):
        loads(text)


@pytest.mark.parametrize("value", [object(), [object()], float("nan"), frozenset([1])])
def test_what_has_no_literal_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="cannot be the value of an option"):
        dumps(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [(80, "80"), (True, "true"), (None, ""), ("x", "x"), (1.5, "1.5"), ([80], "!py![80]")],
)
def test_how_a_value_reads_inside_text(value: Any, text: str) -> None:
    assert inside_text(to_option(value)) == text
