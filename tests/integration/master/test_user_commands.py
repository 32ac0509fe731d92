"""`slapos master user` and `slapos master project`, on the database of a master."""

import json
from pathlib import Path
from typing import Any

import pytest

from slapos.command.main import main
from tests.integration.master.people import OTHER_PASSWORD, PASSWORD, People, code_of
from tests.integration.master.test_master_commands import configured

EMAIL = "customer-1@example.com"


class Shell:
    """Runs commands, and returns what they print as JSON."""

    def __init__(self, cfg: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.cfg, self.capsys = cfg, capsys

    def __call__(self, *words: str, status: int = 0) -> Any:
        command = ["master", *words, "--cfg", str(self.cfg), "--json"]
        assert main(command) == status
        return json.loads(self.capsys.readouterr().out)


@pytest.fixture
def shell(
    people: People, database_uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Shell:
    url = "https://master.example.com/"
    return Shell(configured(tmp_path, database_uri, public_url=url), capsys)


def test_people_are_invited_listed_suspended_and_admitted(people: People, shell: Shell) -> None:
    owner = people.person(EMAIL)
    (project,) = shell("project", "create", "shop", "--owner", EMAIL)["projects"]
    assert (project["title"], project["owner"]) == ("shop", owner)
    assert project in shell("project", "list")["projects"]
    told = shell("user", "invite", "b@example.com", "--role", "customer", "--project", "PROJ-1")
    assert told["link"].startswith("https://master.example.com/invitation?token=")
    listed = {each["email"]: each for each in shell("user", "list")["persons"]}
    roles = f"customer of {project['reference']}, production_manager of {project['reference']}"
    assert listed[EMAIL]["roles"] == roles
    assert shell("user", "suspend", EMAIL) == {"person": owner, "state": "suspended"}
    assert code_of(people.sign_in(people.nobody(), EMAIL)) == "sign_in_refused"
    assert shell("user", "admit", owner) == {"person": owner, "state": "active"}
    people.signed_in(EMAIL)


def test_roles_are_given_and_taken(people: People, shell: Shell) -> None:
    people.person(EMAIL)
    assert shell("user", "add-role", EMAIL, "--role", "administrator")["role"] == "administrator"
    last = shell("user", "remove-role", EMAIL, "--role", "administrator", status=1)
    assert last["error"]["code"] == "conflict"
    wrong = shell("user", "add-role", EMAIL, "--role", "king", status=1)
    assert "administrator, customer" in wrong["error"]["message"]
    shell("user", "add-role", EMAIL, "--role", "support")
    assert shell("user", "remove-role", EMAIL, "--role", "support")["removed"] == "support"


def test_a_password_is_reset_by_a_link_that_is_good_once(people: People, shell: Shell) -> None:
    people.person(EMAIL)
    client = people.signed_in(EMAIL)
    program = people.with_token(people.token(client, "read"))
    first = shell("user", "reset-password", EMAIL)["link"]
    second = shell("user", "reset-password", EMAIL)["link"]
    answers = []
    for link in (first, second, second):
        asked = {"token": link.partition("token=")[2], "password": OTHER_PASSWORD}
        answers.append(people.nobody().post("/v1/new-password", json=asked))
    assert [answer.status_code for answer in answers] == [403, 200, 403]
    assert client.get("/v1/me").status_code == program.get("/v1/me").status_code == 401
    assert people.sign_in(people.nobody(), EMAIL, PASSWORD).status_code == 401
    assert people.sign_in(people.nobody(), EMAIL, OTHER_PASSWORD).status_code == 200


def test_what_makes_no_sense_is_one_line(
    people: People, shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (("user", "suspend"), ("user", "list", "P-1"), ("project", "create")):
        assert shell(*words, status=1)["error"]["code"] == "invalid"
    assert shell("user", "suspend", "x@example.com", status=1)["error"]["code"] == "not_found"
    assert main(["master", "user", "list", "--cfg", str(shell.cfg)]) == 0
    assert capsys.readouterr().out.startswith("REFERENCE")
