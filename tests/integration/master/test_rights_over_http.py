"""Every role at every route of `/v1`: what is one's own project's, and what is a foreign one's."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.routing import Rule

from slapos.master.app import create_app
from slapos.master.http import PUBLIC
from slapos.master.identity.caller import Role
from slapos.master.settings import Profile, Settings, database_url
from tests.database import SqliteTemplate
from tests.fakes import FakeClock, FakeIdentifiers
from tests.integration.master.factories import URL, request_form
from tests.integration.master.full import World, by_header

#: Who asks → reference. The roles are those in PROJ-1; whoever is foreign is something in PROJ-2.
ROLES: dict[str, str] = {
    role.value: f"P-{100 + number}"
    for number, role in enumerate(Role)
    if role is not Role.ADMINISTRATOR
}
CALLERS = {
    "administrator": "P-200",
    **ROLES,
    "foreign manager": "P-22",
    "foreign node": "COMP-2",
    "foreign instance": "SOFTINST-foreign",
}
COLUMNS = (
    *("administrator", "production_manager", "production_agent", "customer", "support"),
    *("sale_manager", "sale_agent", "accounting_manager", "accounting_agent"),
    *("foreign manager", "foreign node", "foreign instance"),
)

#: Columns as above: + it is done, - refused (403), . as if it were not there (404).
EXPECTED = """
GET    /v1/projects/PROJ-1                             + + + + + + + + + . . .
PATCH  /v1/projects/PROJ-1 title                       + + - - - + + - - . . .
PATCH  /v1/projects/PROJ-1 suspended                   + - - - - + - - - . . .
PATCH  /v1/projects/PROJ-1 archived                    + - - - - + - - - . . .
GET    /v1/projects/PROJ-1/members                     + + + . . + + . . . . .
POST   /v1/projects/PROJ-1/members member              + + - . . - - . . . . .
DELETE /v1/projects/PROJ-1/members/P-11/customer       + + - . . - - . . . . .
GET    /v1/projects/PROJ-1/invitations                 + + . . . . . . . . . .
POST   /v1/projects/PROJ-1/invitations invitation      + + - - - - - - - . . .
GET    /v1/persons/P-11                                + . . . . . . . . . . .
PATCH  /v1/persons/P-11 name                           + . . . . . . . . . . .
PATCH  /v1/persons/P-11 suspended                      + . . . . . . . . . . .
GET    /v1/persons/P-11/roles                          + . . . . . . . . . . .
POST   /v1/persons/P-11/roles role                     + . . . . . . . . . . .
GET    /v1/nodes/COMP-1                                + + + + + + + . . . . .
GET    /v1/nodes/COMP-1/partitions                     + + + + + + + . . . . .
PATCH  /v1/nodes/COMP-1 title                          + + + - - - - . . . . .
DELETE /v1/nodes/COMP-1                                + + + - - - - . . . . .
GET    /v1/nodes/COMP-1/changes                        + + + - - - - . . . . .
GET    /v1/networks/{network}                          + + + + + . . . . . . .
PATCH  /v1/networks/{network} title                    + + + - - . . . . . . .
DELETE /v1/networks/{network}                          + + + - - . . . . . . .
POST   /v1/networks own                                + + + - - - - - - . . .
GET    /v1/products/{product}                          + + + + + + + + + . . .
GET    /v1/products/{product}/releases                 + + + + + + + + + . . .
GET    /v1/products/{product}/types                    + + + + + + + + + . . .
PATCH  /v1/products/{product} title                    + + + - - - - - - . . .
DELETE /v1/products/{product}                          + + + - - - - - - . . .
POST   /v1/products/{product}/releases release         + + + - - - - - - . . .
POST   /v1/products own                                + + + - - - - - - . . .
GET    /v1/supplies/{supply}                           + + + + + . . . . . . .
PATCH  /v1/supplies/{supply} title                     + + + - - . . . . . . .
DELETE /v1/supplies/{supply}                           + + + - - . . . . . . .
POST   /v1/supplies own                                + + + - - - - - - . . .
GET    /v1/installations/{installation}                + + + + + . . . . . . .
DELETE /v1/installations/{installation}                + + + - - . . . . . . .
"""

BODIES: dict[str, dict[str, Any]] = {
    "title": {"title": "another"},
    "name": {"name": "another"},
    "suspended": {"state": "suspended"},
    "archived": {"state": "archived"},
    "member": {"person": "P-11", "role": "support"},
    "role": {"role": "support"},
    "invitation": {"email": "invited@example.com", "role": "customer"},
    "own": {"title": "made here", "project": "PROJ-1"},
    "release": {"url": "https://example.org/other.cfg"},
}


@dataclass
class Case:
    """A request, and how it goes for each caller."""

    method: str
    path: str
    body: dict[str, Any] | None
    expected: dict[str, str]

    def __str__(self) -> str:
        return f"{self.method} {self.path} {sorted(self.body or ())}"


def cases() -> Iterator[Case]:
    for line in EXPECTED.strip().splitlines():
        words = line.split()
        marks = words[-len(COLUMNS) :]
        method, path, *rest = words[: -len(COLUMNS)]
        body = BODIES[rest[0]] if rest else None
        yield Case(method, path, body, dict(zip(COLUMNS, marks, strict=True)))


@dataclass
class Site:
    """The world, with a person for each role and something of each kind in PROJ-1."""

    world: World
    made: dict[str, str]

    def ask(self, caller: str, method: str, path: str, body: Any = None) -> int:
        reference = self.made.get(caller) or CALLERS[caller]
        client = self.world.as_(reference)
        answer = client.open(path.format(**self.made), method=method, json=body)
        return answer.status_code


@pytest.fixture
def site(tmp_path: Path, sqlite_template: SqliteTemplate, clock: FakeClock) -> Iterator[Site]:
    sqlite_template.copy_to(tmp_path / "master.db")
    settings = Settings(
        database_url=database_url(str(tmp_path / "master.db")), profile=Profile.FULL
    )
    app = create_app(settings, clock, FakeIdentifiers(), by_header)
    world = World(app)
    with world.session() as session:
        world.person(session, 200, (None, Role.ADMINISTRATOR))
        for role, reference in ROLES.items():
            world.person(session, int(reference.removeprefix("P-")), (1, Role(role)))
        session.commit()
    yield Site(world, furnish(world))
    app.extensions["slapos"].database.close()


def furnish(world: World) -> dict[str, str]:
    """Make something of each kind in PROJ-1, and an instance in PROJ-2; return references."""
    made = {}
    for kind in ("networks", "products", "supplies"):
        answer = create(world.as_("P-21"), kind, {"title": kind, "project": "PROJ-1"})
        made[{"supplies": "supply"}.get(kind, kind.rstrip("s"))] = answer["reference"]
    installed = create(world.as_("P-21"), "installations", {"node": "COMP-1", "url": URL})
    made["installation"] = installed["reference"]
    world.as_("P-12").post("/requestComputerPartition", data=request_form("foreign"))
    made["foreign instance"] = world.place("foreign", "COMP-2", "slappart0")
    return made


def create(client: FlaskClient, kind: str, body: dict[str, Any]) -> dict[str, str]:
    answer = client.post(f"/v1/{kind}", json=body)
    assert answer.status_code in (200, 201), answer.text
    found: dict[str, str] = answer.get_json()
    return found


def mark(status: int) -> str:
    # Somebody before has made the same: it would be done.
    done = status < 400 or status == 409
    return {403: "-", 404: "."}.get(status, "+" if done else str(status))


def test_what_each_role_sees(site: Site) -> None:
    for case in cases():
        if case.method == "GET":
            found = {each: mark(site.ask(each, "GET", case.path)) for each in COLUMNS}
            assert found == case.expected, case


@pytest.mark.parametrize("case", [each for each in cases() if each.method != "GET"], ids=str)
def test_what_each_role_changes(case: Case, site: Site) -> None:
    found: dict[str, str] = {}
    # Those who are refused first: what is done changes what the next one finds.
    for caller in sorted(COLUMNS, key=lambda each: case.expected[each] == "+"):
        if case.method == "DELETE" and "+" in found.values():
            continue  # it is gone
        if case.expected[caller] == "+" and case.body in (BODIES["archived"], BODIES["suspended"]):
            site.ask("administrator", "PATCH", case.path, {"state": "active"})
        found[caller] = mark(site.ask(caller, case.method, case.path, case.body))
        if case.body == BODIES["archived"] and found[caller] == "+":
            break  # for good
    assert found == {caller: case.expected[caller] for caller in found}
    assert set(found) == set(COLUMNS) or case.method == "DELETE" or case.body == BODIES["archived"]


LISTS = {
    "/v1/nodes": "COMP-1",
    "/v1/networks": "{network}",
    "/v1/products": "{product}",
    "/v1/supplies": "{supply}",
    "/v1/installations": "{installation}",
    "/v1/projects": "PROJ-1",
    "/v1/persons": "P-11",
}


@pytest.mark.parametrize("path", LISTS)
def test_a_list_has_what_its_reader_may_see_and_no_more(path: str, site: Site) -> None:
    shown = LISTS[path].format(**site.made)
    for caller in COLUMNS:
        reference = site.made.get(caller) or CALLERS[caller]
        answer = site.world.as_(reference).get(f"{path}?limit=500")
        assert answer.status_code == 200, (caller, answer.text)
        sees_one = site.ask(caller, "GET", f"{path}/{shown}") == 200
        assert (f'"{shown}"' in answer.text) == sees_one, (caller, answer.text)


def routes(app: Flask) -> Iterator[tuple[Rule, str]]:
    """Yield every rule of the master with each of its methods."""
    for rule in app.url_map.iter_rules():
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            yield rule, method


def example(rule: Rule, site: Site) -> str:
    """Return a path of a rule that names things of PROJ-1."""
    known = {
        "/v1/nodes": "COMP-1",
        "/v1/networks": site.made["network"],
        "/v1/products": site.made["product"],
        "/v1/supplies": site.made["supply"],
        "/v1/installations": site.made["installation"],
        "/v1/projects": "PROJ-1",
        "/v1/persons": "P-11",
    }
    path = rule.rule
    for prefix, reference in known.items():
        if path.startswith(f"{prefix}/<"):
            path = re.sub(r"<[^>]+>", reference, path, count=1)
    path = re.sub(r"<any\((\w+)[^>]*>", r"\1", path)
    path = re.sub(r"<int:[^>]+>", "1", path)
    return re.sub(r"<[^>]+>", "x", path)


#: What answers without saying who asks, and says what it is.
OPEN = {"/metrics"}


def test_nobody_gets_anything_without_saying_who_it_is(site: Site) -> None:
    client = site.world.app.test_client()
    open_to_all = set()
    for rule, method in routes(site.world.app):
        view = site.world.app.view_functions[rule.endpoint]
        if getattr(view, PUBLIC, False) or rule.rule in OPEN:
            open_to_all.add(rule.rule)
            continue
        answer = client.open(example(rule, site), method=method, json={})
        is_sent_to_sign_in = answer.status_code == 303 and answer.location.startswith("/sign-in")
        assert answer.status_code == 401 or is_sent_to_sign_in, (method, rule.rule, answer.text)
    # Whoever opens another one changes this list too.
    assert open_to_all - OPEN <= {
        *("/", "/panel.css", "/openapi.json", "/v1/health"),
        *("/setup", "/sign-in", "/sign-out", "/invitation", "/new-password"),
        *("/v1/setup", "/v1/sign-in", "/v1/sign-out", "/v1/new-password"),
        *("/v1/invitations/acceptance", "/sign-in/code"),
        *("/sign-in/openid", "/sign-in/openid/back"),
        *("/v1/authority", "/v1/authority/revocations", "/v1/nodes/join"),
        *("/v1/certificates/renewals", "/Person_requestComputer"),
        *("/forgotten-password", "/v1/forgotten-password"),
    }


def test_nobody_reaches_a_foreign_thing_by_its_reference(site: Site) -> None:
    strangers = ("foreign manager", "foreign node", "foreign instance")
    guarded = 0
    for rule, method in routes(site.world.app):
        path = example(rule, site)
        if not rule.rule.startswith("/v1/") or path == rule.rule or "/me/" in path:
            continue
        for caller in strangers:
            status = site.ask(
                caller, method, path, {} if method in ("POST", "PUT", "PATCH") else None
            )
            # What is asked is looked at before whom it belongs to: that tells nothing of it.
            assert status in (400, 403, 404), (caller, method, path, status)
            if method in ("GET", "DELETE") and not path.startswith("/v1/tasks"):
                assert status == 404, (caller, method, path, status)
        guarded += 1
    assert guarded > 30
