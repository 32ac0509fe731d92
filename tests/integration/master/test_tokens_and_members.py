"""Personal tokens, projects and their members, invitations."""

from datetime import timedelta

import pytest

from slapos.master.identity.caller import Role
from tests.integration.master.people import OTHER_PASSWORD, PASSWORD, People, code_of

MANAGER = "manager-1@example.com"
CUSTOMER = "customer-1@example.com"
OPERATOR = "operator@example.com"


@pytest.fixture
def project(people: People) -> str:
    """A project with a manager and a customer, and an operator who administers everything."""
    people.person(OPERATOR, (None, Role.ADMINISTRATOR))
    reference = people.project("nodes", people.person(MANAGER))
    people.person(CUSTOMER, (reference, Role.CUSTOMER))
    return reference


def test_a_token_says_who_asks_until_it_expires_or_is_revoked(people: People) -> None:
    reference = people.person(CUSTOMER)
    client = people.signed_in(CUSTOMER)
    token = people.token(client, "read", "order")
    assert token.startswith("slapos_")
    assert people.with_token(token).get("/v1/me").get_json()["scopes"] == ["order", "read"]
    by_header = people.nobody().get("/v1/me", headers={"X-Access-Token": token})
    assert by_header.get_json()["reference"] == reference
    (listed,) = client.get("/v1/tokens").get_json()["tokens"]
    assert "token" not in listed
    assert listed["used_at"] == people.clock.now().isoformat()
    short = people.token(
        client, "read", expires_at=(people.clock.now() + timedelta(hours=1)).isoformat()
    )
    people.clock.advance(3600)
    assert code_of(people.with_token(short).get("/v1/me")) == "unauthorized"
    people.person(MANAGER)
    foreign = people.signed_in(MANAGER)
    assert foreign.delete(f"/v1/tokens/{listed['id']}").status_code == 404
    assert client.delete(f"/v1/tokens/{listed['id']}").status_code == 204
    assert code_of(people.with_token(token).get("/v1/me")) == "unauthorized"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("scopes", []),
        ("scopes", ["all"]),
        ("expires_at", "2026-03-01T12:00:00+00:00"),
        ("expires_at", "2027-03-03T12:00:00+00:00"),
        ("expires_at", "2026-04-01T12:00:00"),
        ("title", ""),
    ],
)
def test_a_token_without_an_end_or_a_scope_is_refused(
    people: People, field: str, value: object
) -> None:
    people.person(CUSTOMER)
    asked = {"title": "ci", "scopes": ["read"], "expires_at": "2026-04-01T12:00:00+00:00"}
    answer = people.signed_in(CUSTOMER).post("/v1/tokens", json=asked | {field: value})
    assert answer.status_code == 400
    assert answer.get_json()["fields"][0]["field"].startswith(field)


def test_a_wrong_token_is_no_anonymous_visit_and_no_session(people: People) -> None:
    people.person(CUSTOMER)
    client = people.signed_in(CUSTOMER)
    for token in ("slapos_x", "x", "", "sj1.x.y"):
        headers = {"Authorization": f"Bearer {token}"}
        assert code_of(client.get("/v1/me", headers=headers)) == "unauthorized"


def test_a_token_gives_rights_to_nobody(people: People, project: str) -> None:
    client = people.signed_in(MANAGER)
    program = people.with_token(people.token(client, "read", "order", "operate"))
    expires = (people.clock.now() + timedelta(days=1)).isoformat()
    for answer in (
        program.post("/v1/tokens", json={"title": "t", "scopes": ["read"], "expires_at": expires}),
        program.patch("/v1/me", json={"name": "other"}),
        program.put("/v1/me/password", json={"present": PASSWORD, "password": OTHER_PASSWORD}),
        program.post(
            f"/v1/projects/{project}/invitations",
            json={"email": "x@example.com", "role": "production_manager"},
        ),
    ):
        assert (answer.status_code, code_of(answer)) == (403, "forbidden")
    assert program.patch(f"/v1/projects/{project}", json={"title": "other"}).status_code == 200
    reader = people.with_token(people.token(client, "read"))
    assert reader.get(f"/v1/projects/{project}").status_code == 200
    assert reader.patch(f"/v1/projects/{project}", json={"title": "x"}).status_code == 403


def test_who_makes_a_project_manages_it_and_may_order(people: People) -> None:
    reference = people.person(CUSTOMER)
    client = people.signed_in(CUSTOMER)
    made = client.post("/v1/projects", json={"title": "mine"})
    assert made.status_code == 201
    project = made.get_json()["reference"]
    assert made.headers["Location"].endswith(f"/v1/projects/{project}")
    members = client.get(f"/v1/projects/{project}/members").get_json()["members"]
    assert {(each["person"], each["role"]) for each in members} == {
        (reference, "production_manager"),
        (reference, "customer"),
    }
    people.person(MANAGER)
    foreign = people.signed_in(MANAGER)
    assert foreign.get(f"/v1/projects/{project}").status_code == 404
    assert foreign.get("/v1/projects").get_json()["projects"] == []


def test_the_last_manager_stays(people: People, project: str) -> None:
    client = people.signed_in(MANAGER)
    members = f"/v1/projects/{project}/members"
    listed = client.get(members).get_json()["members"]
    manager, customer = listed[0]["person"], listed[-1]["person"]
    last = client.delete(f"{members}/{manager}/production_manager")
    assert (last.status_code, code_of(last)) == (409, "conflict")
    answer = client.post(members, json={"person": customer, "role": "production_manager"})
    assert answer.status_code == 201
    assert client.delete(f"{members}/{manager}/production_manager").status_code == 204
    # She owns it, so she can come back; that is what the new manager cannot prevent.
    assert client.patch(f"/v1/projects/{project}", json={"title": "x"}).status_code == 200
    own = {"person": manager, "role": "production_manager"}
    assert people.signed_in(CUSTOMER).post(members, json=own).status_code == 201
    assert client.delete(f"{members}/{customer}/production_manager").status_code == 204


def test_roles_about_money_and_everywhere_are_given_by_administrators(
    people: People, project: str
) -> None:
    members = f"/v1/projects/{project}/members"
    people.person("boss@example.com", (None, Role.PRODUCTION_MANAGER), (None, Role.SALE_MANAGER))
    for client in (people.signed_in(MANAGER), people.signed_in("boss@example.com")):
        me = client.get("/v1/me").get_json()["reference"]
        for role in ("sale_manager", "accounting_agent"):
            given = client.post(members, json={"person": me, "role": role})
            assert given.status_code in (403, 404)
            asked = {"email": "x@example.com", "role": role}
            invited = client.post(f"/v1/projects/{project}/invitations", json=asked)
            assert invited.status_code == 403
        for role in ("administrator", "customer", "production_manager"):
            answer = client.post(f"/v1/persons/{me}/roles", json={"role": role})
            assert answer.status_code in (403, 404)
    operator = people.signed_in(OPERATOR)
    me = people.signed_in(MANAGER).get("/v1/me").get_json()["reference"]
    given = operator.post(members, json={"person": me, "role": "sale_manager"})
    assert given.status_code == 201


def test_the_last_administrator_stays(people: People, project: str) -> None:
    client = people.signed_in(OPERATOR)
    me = client.get("/v1/me").get_json()["reference"]
    assert client.delete(f"/v1/persons/{me}/roles/administrator").status_code == 409
    assert client.patch(f"/v1/persons/{me}", json={"state": "suspended"}).status_code == 409
    other = people.signed_in(CUSTOMER).get("/v1/me").get_json()["reference"]
    given = client.post(f"/v1/persons/{other}/roles", json={"role": "administrator"})
    assert {"project": None, "role": "administrator"} in given.get_json()["roles"]
    assert client.delete(f"/v1/persons/{me}/roles/administrator").status_code == 204
    assert client.get("/v1/persons").get_json()["persons"][0]["reference"] == me


def test_strangers_are_invited_and_not_added(people: People, project: str) -> None:
    stranger = people.person("stranger@example.com")
    client = people.signed_in(MANAGER)
    members = f"/v1/projects/{project}/members"
    for reference in (stranger, "P-999"):
        answer = client.post(members, json={"person": reference, "role": "customer"})
        assert answer.status_code == 404
    everywhere = {"person": client.get("/v1/me").get_json()["reference"], "role": "administrator"}
    assert client.post(members, json=everywhere).status_code == 400


def invite(people: People, project: str, email: str, role: str = "customer") -> str:
    answer = people.signed_in(MANAGER).post(
        f"/v1/projects/{project}/invitations", json={"email": email, "role": role}
    )
    assert answer.status_code == 201
    told = answer.get_json()
    assert told["link"].endswith(f"/invitation?token={told['token']}")
    return str(told["token"])


def test_somebody_new_accepts_an_invitation_once(people: People, project: str) -> None:
    token = invite(people, project, "New@example.com", "production_agent")
    asked = {"token": token, "name": "somebody new", "password": PASSWORD}
    client = people.nobody()
    assert client.post("/v1/invitations/acceptance", json=asked).status_code == 200
    me = client.get("/v1/me").get_json()
    assert me["email"] == "new@example.com"
    assert me["roles"] == [{"project": project, "role": "production_agent"}]
    again = people.nobody().post("/v1/invitations/acceptance", json=asked)
    assert (again.status_code, code_of(again)) == (403, "token_invalid")


def test_somebody_with_an_account_accepts_as_herself_only(people: People, project: str) -> None:
    people.person("known@example.com")
    token = invite(people, project, "known@example.com")
    taken = {"token": token, "name": "impostor", "password": OTHER_PASSWORD}
    refused = people.nobody().post("/v1/invitations/acceptance", json=taken)
    assert (refused.status_code, code_of(refused)) == (409, "conflict")
    path, asked = "/v1/invitations/acceptance", {"token": token}
    assert people.nobody().post(path, json=asked).status_code == 403
    assert people.signed_in(CUSTOMER).post(path, json=asked).status_code == 403
    known = people.signed_in("known@example.com")
    assert known.post(path, json=asked).status_code == 200
    assert known.get(f"/v1/projects/{project}").status_code == 200


def test_an_invitation_ends_after_a_week_or_when_it_is_withdrawn(
    people: People, project: str
) -> None:
    path = "/v1/invitations/acceptance"
    asked = {"token": invite(people, project, "a@example.com"), "name": "a", "password": PASSWORD}
    client = people.signed_in(MANAGER)
    (listed,) = client.get(f"/v1/projects/{project}/invitations").get_json()["invitations"]
    assert "token" not in listed
    assert people.signed_in(CUSTOMER).get(f"/v1/projects/{project}/invitations").status_code == 404
    withdrawn = client.delete(f"/v1/projects/{project}/invitations/{listed['reference']}")
    assert withdrawn.status_code == 204
    assert code_of(people.nobody().post(path, json=asked)) == "token_invalid"
    asked["token"] = invite(people, project, "a@example.com")
    people.clock.advance(7 * 24 * 3600)
    assert code_of(people.nobody().post(path, json=asked)) == "token_invalid"


def test_in_a_suspended_project_its_people_only_look_on(people: People, project: str) -> None:
    client, operator = people.signed_in(MANAGER), people.signed_in(OPERATOR)
    path = f"/v1/projects/{project}"
    assert client.patch(path, json={"state": "suspended"}).status_code == 403
    assert operator.patch(path, json={"state": "suspended"}).status_code == 200
    assert client.get(path).get_json()["state"] == "suspended"
    for answer in (
        client.patch(path, json={"title": "x"}),
        client.patch(path, json={"state": "active"}),
        client.post(f"{path}/invitations", json={"email": "a@example.com", "role": "customer"}),
    ):
        assert answer.status_code == 403
    assert operator.patch(path, json={"state": "active"}).status_code == 200
    assert client.patch(path, json={"title": "x"}).status_code == 200
    assert client.patch(path, json={"state": "archived"}).status_code == 200
    assert operator.patch(path, json={"state": "active"}).status_code == 409


def test_lists_come_in_pages(people: People, project: str) -> None:
    client = people.signed_in(OPERATOR)
    for number in range(5):
        people.person(f"person-{number}@example.com")
    found, after = [], None
    while True:
        told = client.get(
            "/v1/persons", query_string={"limit": 2, **({"after": after} if after else {})}
        )
        found += [each["reference"] for each in told.get_json()["persons"]]
        after = told.get_json()["next"]
        if after is None:
            break
    assert len(found) == len(set(found)) == 9  # with the local master's


def test_organisations_are_of_those_who_sell(people: People, project: str) -> None:
    client = people.signed_in(OPERATOR)
    asked = {"title": "provider", "country": "FR", "vat_code": None}
    made = client.post("/v1/organisations", json=asked)
    path = f"/v1/organisations/{made.get_json()['reference']}"
    assert client.put(path, json=asked | {"country": "DE"}).get_json()["country"] == "DE"
    assert client.put(path, json=asked | {"country": "Germany"}).status_code == 400
    assert people.signed_in(MANAGER).get(path).status_code == 404
    stale = client.put(path, json=asked, headers={"If-Match": 'W/"x"'})
    assert stale.status_code == 412
    reference = path.rpartition("/")[2]
    changed = client.patch(f"/v1/projects/{project}", json={"organisation": reference})
    assert changed.get_json()["organisation"] == reference
