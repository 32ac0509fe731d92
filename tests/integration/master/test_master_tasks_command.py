"""`slapos master tasks`, beside a master that runs and without one."""

import json
import time
from pathlib import Path
from typing import Any

from tests.integration.master.test_master_commands import configured, master, started

TASK = "forget_taken_reports"


def shown(cfg: Path) -> dict[str, Any]:
    done = master("tasks", "--json", cfg=cfg)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)["tasks"]
    return next(each for each in found if each["name"] == TASK)


def test_tasks_are_shown_and_have_one_done(tmp_path: Path, empty_database_uri: str) -> None:
    cfg = configured(tmp_path, empty_database_uri)
    assert master("init", cfg=cfg).returncode == 0
    assert master("tasks", "--run", TASK, cfg=cfg).returncode == 0
    before = shown(cfg)
    assert (before["waiting"], before["began_at"]) == (1, None)
    with started(cfg):
        deadline = time.monotonic() + 60
        while (found := shown(cfg))["waiting"] or not found["began_at"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert (found["failures"], found["error"]) == (0, "")
    table = master("tasks", cfg=cfg).stdout.splitlines()
    assert table[0].startswith("TASK ")
    assert any(line.startswith(f"{TASK} ") for line in table)
    refused = master("tasks", "--run", "no_such_task", cfg=cfg)
    assert refused.returncode == 1
    assert "there is no task 'no_such_task'" in refused.stderr
