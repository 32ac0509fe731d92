"""`slapos request` and its kin as programs, against a master that really runs."""

import json
import signal
from pathlib import Path

import pytest

from slapos.protocol.states import InstanceState
from tests.integration.command.conftest import NODE, Installation

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"workers": {"type": "integer", "description": "Processes that serve"}},
}


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A release whose parameters have a schema."""
    folder = tmp_path / "release"
    folder.mkdir()
    (folder / "software.cfg").write_text("[buildout]\nparts =\n")
    types = {"default": {"request": "in.json"}}
    descriptor = {"serialisation": "json-in-xml", "software-type": types}
    (folder / "software.cfg.json").write_text(json.dumps(descriptor))
    (folder / "in.json").write_text(json.dumps(SCHEMA))
    return folder / "software.cfg"


def parameters_of(installation: Installation, partition: str = "slappart0") -> object:
    found = installation.client.partition_information(NODE, partition).parameters
    return json.loads(found["_"])


def test_a_request_is_checked_converted_and_sent(installation: Installation, release: Path) -> None:
    done = installation.slapos("request", "blog", "release", "--parameters", "workers=4")
    assert done.returncode == 0, done.stderr
    assert "State is : started." in done.stderr
    assert "It is building (slappart0 on local): " in done.stderr
    assert f"run `slapos supply {release} local`" in done.stderr
    assert parameters_of(installation) == {"workers": 4}
    found = installation.client.partition_information(NODE, "slappart0")
    assert found.software_url == str(release)


def test_parameters_that_do_not_fit_are_not_sent(installation: Installation, release: Path) -> None:
    words = ("request", "blog", str(release), "--parameters", "workers=four", "wokers=1")
    refused = installation.slapos(*words, "--json")
    assert refused.returncode == 1
    assert '$.workers: must be an integer, not "four" (Processes that serve)' in refused.stderr
    assert "$.wokers: there is no such parameter; did you mean 'workers'?" in refused.stderr
    problems = json.loads(refused.stdout)["error"]["problems"]
    assert {problem["path"] for problem in problems} == {"$.workers", "$.wokers"}
    assert installation.client.partition_information(NODE, "slappart0").is_free


def test_a_request_replaces_all_parameters(installation: Installation, release: Path) -> None:
    installation.slapos("request", "blog", str(release), "--parameters", "workers=4")
    installation.slapos("request", "blog", str(release))
    found = installation.client.partition_information(NODE, "slappart0").parameters
    assert "_" not in found


def test_a_full_master_says_so(installation: Installation, release: Path) -> None:
    for number in range(2):
        assert installation.slapos("request", f"blog{number}", str(release)).returncode == 0
    refused = installation.slapos("request", "blog2", str(release))
    assert refused.returncode == 1
    assert "partition" in refused.stderr


def test_waiting_shows_each_phase_and_ends_when_all_is_healthy(
    installation: Installation, release: Path
) -> None:
    assert installation.slapos("supply", str(release), NODE).returncode == 0
    with installation.start("request", "blog", str(release), "--wait", "--timeout", "30") as ask:
        assert ask.stderr is not None
        assert ask.stdout is not None
        lines = iter(ask.stderr.readline, "")
        next(line for line in lines if "blog  building  slappart0 on local" in line)
        installation.client.report_available(NODE, str(release))
        next(line for line in lines if "blog  instantiating" in line)
        message = "Promise 'url.py' failed: connection refused"
        installation.client.report_instance_error(NODE, "slappart0", message)
        next(line for line in lines if "blog  promising" in line and message in line)
        installation.client.publish(NODE, "slappart0", {"url": "http://127.0.1.2/"})
        installation.client.report_state(NODE, "slappart0", InstanceState.STARTED)
        next(line for line in lines if "blog  healthy" in line)
        assert json.loads(ask.stdout.read()) == {"url": "http://127.0.1.2/"}
    assert ask.returncode == 0


def test_who_stops_waiting_learns_that_the_order_stands(
    installation: Installation, release: Path
) -> None:
    with installation.start("request", "my blog", str(release), "--wait") as ask:
        assert ask.stderr is not None
        lines = iter(ask.stderr.readline, "")
        next(line for line in lines if "building" in line)
        ask.send_signal(signal.SIGINT)
        assert "`slapos service info 'my blog'` shows how" in ask.stderr.read()
    assert ask.returncode == 130
    assert installation.slapos("service", "info", "my blog").returncode == 0


def test_waiting_in_vain_tells_which_instance_and_why(
    installation: Installation, release: Path
) -> None:
    installation.slapos("supply", str(release), NODE)
    installation.client.report_available(NODE, str(release))
    log = installation.directory / "slappart0/.slapgrid/log/instance.log"
    log.parent.mkdir(parents=True)
    log.touch()
    done = installation.slapos(
        "request", "blog", str(release), "--wait", "--timeout", "1", "--json"
    )
    assert done.returncode == 2
    told = json.loads(done.stdout)
    assert (told["ready"], told["verdict"]) == (False, "timed_out")
    assert "blog (slappart0 on local) is instantiating" in done.stderr
    assert str(log) in done.stderr


def test_a_name_that_is_taken_is_no_secret(installation: Installation, release: Path) -> None:
    installation.slapos("request", "blog", str(release))
    other = release.with_name("other.cfg")
    other.write_text("[buildout]\nparts =\n")
    changed = installation.slapos("request", "blog", str(other))
    assert changed.returncode == 0
    assert f"note: blog has been an instance of {release}, and is changed" in changed.stderr


@pytest.mark.parametrize("title", ['a "b"', "a/b", "é☃", "a\\b", "a?b#c%2f", "--x y".strip("-")])
def test_any_title_can_be_shown_and_given_up(
    installation: Installation, release: Path, title: str
) -> None:
    assert installation.slapos("service", "info", title).returncode == 2
    assert installation.slapos("request", title, str(release)).returncode == 0
    shown = json.loads(installation.slapos("service", "info", title).stdout)
    assert shown["tree"][0]["title"] == title
    assert installation.slapos("service", "destroy", title, "--yes").returncode == 0


def test_a_service_is_listed_shown_and_given_up(installation: Installation, release: Path) -> None:
    installation.slapos("request", "blog", str(release), "--parameters", "workers=4")
    listed = installation.slapos("service", "list")
    assert json.loads(listed.stdout) == {"blog": str(release)}
    shown = json.loads(installation.slapos("service", "info", "blog").stdout)
    assert shown["instance-parameters"] == {"_": {"workers": 4}}
    assert shown["status"] == "none"
    assert [one["phase"] for one in shown["tree"]] == ["building"]
    with installation.start("service", "destroy", "blog", "--yes", "--wait") as destroy:
        assert destroy.stderr is not None
        lines = iter(destroy.stderr.readline, "")
        next(line for line in lines if "blog  destroying" in line)
        installation.client.report_state(NODE, "slappart0", InstanceState.DESTROYED)
        destroy.communicate(timeout=30)
    assert destroy.returncode == 0
    assert installation.slapos("service", "info", "blog").returncode == 2
    assert installation.client.partition_information(NODE, "slappart0").is_free


def test_nothing_is_given_up_by_a_slip(installation: Installation, release: Path) -> None:
    installation.slapos("request", "blog", str(release))
    refused = installation.slapos("service", "destroy", "blog")
    assert refused.returncode == 1
    assert "--yes" in refused.stderr
    assert installation.slapos("service", "destroy", "blgo", "--yes").returncode == 2


def test_the_logs_of_a_service_are_shown(installation: Installation, release: Path) -> None:
    installation.slapos("request", "blog", str(release))
    nothing = installation.slapos("service", "logs", "blog")
    assert (nothing.returncode, "logged yet" in nothing.stderr) == (1, True)
    partition = installation.directory / "slappart0"
    partition.mkdir()
    (partition / ".slappart0_gunicorn.log").write_text("one\ntwo\nthree\n")
    shown = installation.slapos("service", "logs", "blog", "--lines", "2")
    assert shown.returncode == 0
    assert ".slappart0_gunicorn.log <==\ntwo\nthree\n" in shown.stdout
    with installation.start("service", "logs", "blog", "-f") as follow:
        assert follow.stdout is not None
        lines = iter(follow.stdout.readline, "")
        next(line for line in lines if line == "three\n")
        with (partition / ".slappart0_gunicorn.log").open("a") as stream:
            stream.write("four\n")
        next(line for line in lines if line == "four\n")
        follow.terminate()


def test_nodes_are_listed_and_shown(installation: Installation) -> None:
    listed = json.loads(installation.slapos("computer", "list", "--json").stdout)
    assert [node["reference"] for node in listed] == [NODE]
    shown = installation.slapos("computer", "info", NODE)
    assert "Computer Reference: local" in shown.stdout
    assert "Partitions        : 0 busy, 2 free" in shown.stdout
    told = json.loads(installation.slapos("computer", "info", NODE, "--json").stdout)
    assert [one["reference"] for one in told["partitions"]] == ["slappart0", "slappart1"]
    assert installation.slapos("computer", "info", "none").returncode == 2


def test_a_master_that_is_not_there_is_named(installation: Installation, release: Path) -> None:
    (installation.directory / "client.cfg").write_text(
        "[slapos]\nmaster_url = http://127.0.0.1:1/\n"
    )
    refused = installation.slapos("request", "blog", str(release))
    assert refused.returncode == 1
    assert "http://127.0.0.1:1/ does not answer" in refused.stderr


def test_a_reader_that_goes_away_is_no_failure(installation: Installation) -> None:
    with installation.start("service", "--help") as command:
        assert command.stdout is not None
        command.stdout.close()
        assert command.stderr is not None
        assert command.stderr.read() == ""
