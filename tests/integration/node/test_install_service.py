"""`slapos node install-service` as far as it goes without a systemd that runs."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.integration.node.world import World

NO_SYSTEMD = not Path("/run/systemd/system").is_dir()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
@pytest.mark.parametrize("slapformat", [{}, {"interface_name": "eth0", "alter_network": "true"}])
def test_systemd_finds_nothing_wrong_with_the_unit(
    world: World, slapformat: dict[str, str]
) -> None:
    world.configure(slapformat=slapformat)
    shown = world.run("install-service", "--dry-run", "-q")
    assert shown.returncode == 0, shown.stdout
    assert ("ExecStartPre" in shown.stdout) is bool(slapformat)
    unit = world.root / "slapos-node.service"
    unit.write_text(shown.stdout)
    judged = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
    )
    assert (judged.returncode, judged.stderr) == (0, "")


@pytest.mark.skipif(not NO_SYSTEMD, reason="systemd runs here: nothing is to be installed")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root gets so far")
def test_without_systemd_it_says_what_to_do(world: World) -> None:
    answer = world.run("install-service")
    assert answer.returncode == 1
    assert "no systemd runs here" in answer.stdout
    assert f"node run --cfg {world.configuration}" in answer.stdout
