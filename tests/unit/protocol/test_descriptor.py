"""What a release says of itself in `software.cfg.json`."""

import json
from pathlib import Path
from typing import Any

import pytest

from slapos.protocol.descriptor import (
    BrokenDescriptor,
    ReleaseDescriptor,
    Serialisation,
    descriptor_url,
    fetch_document,
    read_descriptor,
)
from slapos.protocol.errors import NotFound

URL = "https://example.com/kinto/software.cfg.json"


def descriptor(**types: dict[str, Any]) -> ReleaseDescriptor:
    data = {"name": "Kinto", "serialisation": "json-in-xml", "software-type": types}
    return ReleaseDescriptor.from_json(URL, data)


@pytest.mark.parametrize(
    ("release", "url"),
    [
        ("https://example.com/a/software.cfg", "https://example.com/a/software.cfg.json"),
        ("https://example.com/software.cfg?r=1", "https://example.com/software.cfg.json?r=1"),
        ("/srv/with space/software.cfg", "file:///srv/with%20space/software.cfg.json"),
    ],
)
def test_the_descriptor_lies_beside_the_release(release: str, url: str) -> None:
    assert descriptor_url(release) == url


def test_schemas_are_found_relative_to_the_descriptor() -> None:
    found = descriptor(default={"request": "in.json", "response": "../out.json"})
    kind = found.find_type("default")
    assert kind.request_schema == "https://example.com/kinto/in.json"
    assert kind.response_schema == "https://example.com/out.json"
    assert kind.serialisation is Serialisation.JSON_IN_XML


def test_a_type_may_travel_in_another_way_than_its_release() -> None:
    found = descriptor(default={}, other={"serialisation": "xml"})
    assert found.find_type("other").serialisation is Serialisation.XML


def test_a_form_may_stand_for_another_type() -> None:
    found = descriptor(small={"software-type": "default"})
    assert found.find_type("small").software_type == "default"
    assert found.find_type("default").name == "small"


def test_the_default_type_has_an_old_name() -> None:
    assert descriptor(RootSoftwareInstance={}).find_type("default").name == "RootSoftwareInstance"


def test_shared_instances_have_types_of_their_own() -> None:
    found = descriptor(default={}, slave={"shared": True, "software-type": "default"})
    assert found.find_type("default", shared=True).name == "slave"
    assert found.find_type("default").name == "default"


def test_an_unknown_type_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(NotFound, match="no software type 'defualt'; it has: default, export"):
        descriptor(default={}, export={}).find_type("defualt")


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "{}",
        '{"software-type": []}',
        '{"software-type": {"default": 1}}',
        '{"serialisation": "yaml", "software-type": {"default": {}}}',
    ],
)
def test_a_broken_descriptor_names_its_file(content: str, tmp_path: Path) -> None:
    (tmp_path / "software.cfg.json").write_text(content)
    with pytest.raises(BrokenDescriptor, match=r"software\.cfg\.json is no"):
        read_descriptor(str(tmp_path / "software.cfg"), fetch_document)


def test_a_release_may_have_no_descriptor(tmp_path: Path) -> None:
    with pytest.raises(BrokenDescriptor, match=r"software\.cfg\.json cannot be read: No such file"):
        read_descriptor(str(tmp_path / "software.cfg"), fetch_document)


def test_a_descriptor_is_read_from_a_path_with_a_space(tmp_path: Path) -> None:
    folder = tmp_path / "my release"
    folder.mkdir()
    (folder / "software.cfg.json").write_text(json.dumps({"software-type": {"default": {}}}))
    assert read_descriptor(str(folder / "software.cfg"), fetch_document).types
