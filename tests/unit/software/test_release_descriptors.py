"""Every release says in JSON schemas what goes in and what comes out, well enough for a form."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from slapos.protocol.descriptor import ReleaseDescriptor, fetch_document, read_descriptor
from slapos.protocol.parameter_defaults import ParameterDefaults
from slapos.protocol.parameter_schema import ParameterSchema

SOFTWARE = Path(__file__).parents[3] / "software"
RELEASES = sorted(path.parent for path in SOFTWARE.glob("*/software.cfg"))
SCHEMAS = sorted(SOFTWARE.glob("*/*-schema.json"))
EXAMPLE = re.compile(r"^```json\n(.*?)^```", re.MULTILINE | re.DOTALL)


def descriptor_of(release: Path) -> ReleaseDescriptor:
    return read_descriptor(str(release / "software.cfg"), fetch_document)


def request_schema(release: Path) -> str:
    url = descriptor_of(release).find_type("default").request_schema
    assert url is not None
    return url


def identify(path: Path) -> str:
    return str(path.relative_to(SOFTWARE))


@pytest.mark.parametrize("release", RELEASES, ids=identify)
def test_a_release_has_all_its_files(release: Path) -> None:
    names = ("instance.cfg.in", "software.cfg.json", "README.md")
    assert [name for name in names if not (release / name).is_file()] == []


@pytest.mark.parametrize("release", RELEASES, ids=identify)
def test_a_descriptor_names_schemas_that_are_there(release: Path) -> None:
    descriptor = descriptor_of(release)
    assert descriptor.name
    assert descriptor.description
    for one in descriptor.types:
        assert one.title
        for url in (one.request_schema, one.response_schema):
            assert url is not None
            assert Path(url.removeprefix("file://")).is_file()


@pytest.mark.parametrize("path", SCHEMAS, ids=identify)
def test_a_schema_is_enough_for_a_form(path: Path) -> None:
    schema: dict[str, Any] = json.loads(path.read_text())
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(schema)
    needed = {"title", "description"} | ({"default"} if "input" in path.name else set())
    lacking = {
        name: needed - set(about)
        for name, about in schema["properties"].items()
        if not needed <= set(about)
    }
    assert lacking == {}


@pytest.mark.parametrize("release", RELEASES, ids=identify)
def test_the_defaults_are_valid(release: Path) -> None:
    url = request_schema(release)
    values = ParameterDefaults(url, fetch_document).with_defaults({})
    assert values
    assert ParameterSchema(url, fetch_document).problems(values) == []


@pytest.mark.parametrize("release", RELEASES, ids=identify)
def test_the_examples_of_a_readme_are_valid(release: Path) -> None:
    examples = EXAMPLE.findall((release / "README.md").read_text())
    assert examples
    schema = ParameterSchema(request_schema(release), fetch_document)
    for example in examples:
        assert schema.problems(json.loads(example)) == []


@pytest.mark.parametrize("release", RELEASES, ids=identify)
def test_what_goes_wrong_is_refused(release: Path) -> None:
    schema = ParameterSchema(request_schema(release), fetch_document)
    assert schema.problems({"no-such-parameter": 1})
    assert schema.problems({"port": "http"})


@pytest.mark.parametrize("path", sorted(SOFTWARE.glob("*/requirements.txt")), ids=identify)
def test_every_locked_package_has_a_hash(path: Path) -> None:
    requirements = path.read_text().replace("\\\n", " ").splitlines()
    assert requirements
    assert [line for line in requirements if "==" not in line or "--hash=sha256:" not in line] == []
