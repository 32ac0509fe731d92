"""Which settings file is taken for the node and the master of this machine."""

from pathlib import Path

import pytest

from slapos.command.machine_configuration import machine_configuration
from slapos.protocol.errors import InvalidConfiguration
from slapos.system.settings import DEFAULT_NODE_CONFIGURATION

pytestmark = pytest.mark.skipif(
    Path(DEFAULT_NODE_CONFIGURATION).exists(), reason="this machine has a node of its own"
)


def configuration(path: Path, **values: str) -> str:
    lines = [f"{name} = {value}" for name, value in values.items()]
    path.write_text("\n".join(["[slapos]", *lines]))
    return str(path)


def test_what_is_named_is_taken_even_if_it_is_not_there() -> None:
    environment = {"SLAPOS_CONFIGURATION": "/b.cfg", "SLAPOS_CLIENT_CONFIGURATION": "/c.cfg"}
    assert machine_configuration("/a.cfg", environment) == Path("/a.cfg")
    assert machine_configuration(None, environment) == Path("/b.cfg")


def test_a_client_that_uses_a_standalone_has_its_node(tmp_path: Path) -> None:
    path = configuration(tmp_path / "slapos.cfg", master_url="http://a", instance_root="/i")
    assert machine_configuration(None, {"SLAPOS_CLIENT_CONFIGURATION": path}) == Path(path)


def test_a_client_of_another_machine_has_no_node_here(tmp_path: Path) -> None:
    path = configuration(tmp_path / "client.cfg", master_url="http://a")
    with pytest.raises(InvalidConfiguration, match="slapos standalone start"):
        machine_configuration(None, {"SLAPOS_CLIENT_CONFIGURATION": path}, tmp_path)
