"""From what the caller typed to what travels."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slapos.command.parameters import (
    GivenParameters,
    InvalidParameters,
    PreparedRequest,
    collect,
    prepare,
    read_parameters_file,
)
from slapos.protocol.descriptor import Serialisation, fetch_document
from slapos.protocol.errors import InvalidRequest, NotFound

SCHEMA = {"properties": {"workers": {"type": "integer"}, "name": {"type": "string"}}}


@pytest.fixture
def ask(tmp_path: Path) -> Callable[..., PreparedRequest]:
    """Prepare a request of a release with a descriptor of the given serialisation (None: none)."""

    def ask(
        given: GivenParameters, *, serialisation: str | None = "json-in-xml", **options: Any
    ) -> PreparedRequest:
        if serialisation is not None:
            types = {"default": {"request": "in.json"}, "export": {"request": "absent.json"}}
            descriptor = {"serialisation": serialisation, "software-type": types}
            (tmp_path / "software.cfg.json").write_text(json.dumps(descriptor))
            (tmp_path / "in.json").write_text(json.dumps(SCHEMA))
        defaults: dict[str, Any] = {"software_type": None, "shared": False, "forced": None}
        defaults |= {"release": str(tmp_path / "software.cfg"), "check": True}
        return prepare(given, fetch=fetch_document, **{**defaults, **options})

    return ask


def words(**values: str) -> GivenParameters:
    return GivenParameters(words=values)


Ask = Callable[..., PreparedRequest]


def test_words_travel_as_json_with_the_types_of_the_schema(ask: Ask) -> None:
    sent = ask(words(workers="4", name="5")).parameters
    assert json.loads(sent["_"]) == {"workers": 4, "name": "5"}


def test_words_travel_as_they_are_in_xml(ask: Ask) -> None:
    assert ask(words(workers="4"), serialisation="xml").parameters == {"workers": "4"}


def test_no_parameters_travel_as_nothing(ask: Ask) -> None:
    assert ask(GivenParameters()).parameters == {}


def test_what_does_not_fit_is_not_sent(ask: Ask) -> None:
    with pytest.raises(InvalidParameters, match=r"\$\.workers: must be an integer") as raised:
        ask(words(workers="four"))
    assert raised.value.details["problems"][0]["path"] == "$.workers"


def test_unchecked_it_is_sent_with_a_note(ask: Ask) -> None:
    prepared = ask(words(workers="four"), check=False)
    assert json.loads(prepared.parameters["_"]) == {"workers": "four"}
    assert prepared.notes == ('$.workers: must be an integer, not "four"',)


def test_an_unknown_type_is_not_sent(ask: Ask) -> None:
    with pytest.raises(NotFound, match="it has: default, export"):
        ask(words(), software_type="exprot")
    assert ask(words(), software_type="exprot", check=False).software_type == "exprot"


def test_without_a_descriptor_words_travel_unchecked(ask: Ask) -> None:
    prepared = ask(words(workers="four"), serialisation=None)
    assert prepared.parameters == {"workers": "four"}
    assert "the parameters are not checked" in prepared.notes[0]


def test_a_broken_schema_blocks_nobody(ask: Ask) -> None:
    prepared = ask(words(workers="four"), software_type="export")
    assert json.loads(prepared.parameters["_"]) == {"workers": "four"}
    assert "absent.json cannot be read" in prepared.notes[0]


def test_without_a_descriptor_somebody_must_say_how_a_file_travels(ask: Ask) -> None:
    given = GivenParameters(values={"workers": 4})
    with pytest.raises(InvalidRequest, match="--force-serialisation"):
        ask(given, serialisation=None)
    sent = ask(given, serialisation=None, forced=Serialisation.XML).parameters
    assert sent == {"workers": "4"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.json", '{"workers": 4, "name": "n"}'),
        ("p.yaml", "workers: 4\nname: n\n"),
        (
            "p.xml",
            '<instance><parameter id="_">{"workers": 4, "name": "n"}</parameter></instance>',
        ),
        ("wrapped.json", '{"_": {"workers": 4, "name": "n"}}'),
    ],
)
def test_parameters_come_from_files(ask: Ask, tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    sent = ask(read_parameters_file(tmp_path / name)).parameters
    assert json.loads(sent["_"]) == {"workers": 4, "name": "n"}


def test_a_wrapped_document_is_checked_too(ask: Ask) -> None:
    with pytest.raises(InvalidParameters):
        ask(GivenParameters(serialised={"_": '{"workers": "four"}'}))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("p.json", "{", "does not hold parameters"),
        ("p.json", "[]", "must be an object"),
        ("p.yaml", "a: [", "does not hold parameters"),
        ("p.yaml", "a: 2020-01-01", "not JSON serializable"),
        ("p.xml", "<x/>", "does not hold parameters"),
    ],
)
def test_a_broken_file_is_refused(tmp_path: Path, name: str, content: str, reason: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InvalidRequest, match=reason):
        read_parameters_file(tmp_path / name)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"p\.json cannot be read: No such file"):
        read_parameters_file(tmp_path / "p.json")


def test_a_key_is_given_once() -> None:
    with pytest.raises(InvalidRequest, match="'a' is given twice: '1' and '2'"):
        collect([("a", "1"), ("a", "2")])
