"""`slapos master remote-node`: what an operator does on the master's machine."""

import io
import json
from pathlib import Path

import pytest

from slapos.command.main import main


def test_a_remote_node_is_added_listed_changed_and_removed(
    tmp_path: Path,
    database_uri: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cfg, secret = tmp_path / "master.cfg", tmp_path / "secret"
    secret.write_text("x" * 64)
    secret.chmod(0o600)
    cfg.write_text(f"[slapos-master]\ndatabase_uri = {database_uri}\nsecret_file = {secret}\n")

    def run(*words: str) -> str:
        asked = ["master", "remote-node", *words, "--cfg", str(cfg)]
        assert main(asked) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    monkeypatch.setattr("sys.stdin", io.StringIO("slapos_secret\n"))
    words = ("--project", "PROJ-1", "--master", "https://master.example.com", "--token", "-")
    more = ("--project-there", "PROJ-7", "--filter", "region=eu", "--partitions", "3")
    told = json.loads(run("add", "far", *words, *more, "--json"))
    reference = told["reference"]
    assert reference.startswith("REMOTE-")
    assert told["master"] == "https://master.example.com/"
    assert (told["free partitions"], told["busy partitions"]) == (3, 0)
    assert "slapos_secret" not in json.dumps(told)
    assert reference in run("list")
    changed = ("--scope", "close/noallocation", "--filter", "region=", "--filter", "group=a")
    told = json.loads(run("set", reference, *changed, "--title", "farther", "--json"))
    assert (told["allocation_scope"], told["title"]) == ("close/noallocation", "farther")
    assert told["filters"] == {"group": "a"}
    assert "project_there: PROJ-7" in run("show", reference)
    assert run("remove", reference) == f"removed: {reference}\n"
    assert json.loads(run("list", "--json")) == {"remote_nodes": []}

    for wrong, reason in (
        (("add", "far", "--project", "PROJ-1"), "--master URL"),
        (("add", "far", *words[:4]), "--token -, or --cert-file and --key-file"),
        (("add", "far", *words[:4], "--cert-file", str(cfg)), "are given together"),
        (("show", "REMOTE-999"), "there is no remote node 'REMOTE-999'"),
    ):
        assert main(["master", "remote-node", *wrong, "--cfg", str(cfg)]) != 0
        assert reason in capsys.readouterr().err
