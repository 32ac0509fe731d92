"""The pages, without a browser: forms, what they answer, and what they never show."""

import re

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from slapos.master.identity import invitations, links
from slapos.master.identity.caller import Role
from tests.integration.master.people import OTHER_PASSWORD, PASSWORD, URL, People

EMAIL = "customer-1@example.com"


def submit(client: FlaskClient, path: str, **fields: str) -> TestResponse:
    return client.post(path, data=fields, headers={"Sec-Fetch-Site": "same-origin"})


def heading(answer: TestResponse) -> str:
    found = re.search(r"<h1>(.*?)</h1>", answer.text)
    assert found is not None, answer.text
    return found[1]


def signed_in(people: People, email: str = EMAIL) -> FlaskClient:
    client = people.nobody()
    answer = submit(client, "/sign-in", email=email, password=PASSWORD, next="/account")
    assert (answer.status_code, answer.location) == (303, "/account")
    return client


def test_the_setup_link_leads_to_an_account(people: People) -> None:
    secret, client = people.setup_secret(), people.nobody()
    shown = client.get(f"/setup?token={secret}")
    assert (shown.status_code, heading(shown)) == (200, "Set up this master")
    assert secret in shown.text
    asked = {"token": secret, "name": "<b>me", "email": EMAIL, "project": "first"}
    refused = submit(client, "/setup", **asked, password="short")
    assert (refused.status_code, heading(refused)) == (400, "Set up this master")
    assert "12 are needed" in refused.text
    assert 'value="&lt;b&gt;me"' in refused.text
    assert "<b>me" not in refused.text
    done = submit(client, "/setup", **asked, password=PASSWORD)
    assert (done.status_code, done.location) == (303, "/account")
    assert "administrator, everywhere" in client.get("/account").text
    again = client.get(f"/setup?token={secret}")
    assert (again.status_code, heading(again)) == (403, "This did not work")


def test_pages_are_protected(people: People) -> None:
    answer = people.nobody().get("/sign-in")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "<script" not in answer.text
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cache-Control"] == "no-store"
    style = people.nobody().get("/panel.css")
    assert style.content_type == "text/css; charset=utf-8"


def test_who_has_not_signed_in_comes_back_to_where_she_wanted(people: People) -> None:
    people.person(EMAIL)
    client = people.nobody()
    assert client.get("/").location == "/sign-in"
    assert client.get("/account").location == "/sign-in"
    assert submit(client, "/account/name", name="x").location == "/sign-in"
    wanted = "/invitation?token=a"
    asked = {"email": EMAIL, "password": PASSWORD}
    assert submit(client, "/sign-in", **asked, next=wanted).location == wanted
    assert client.get("/").location == "/account"


def test_nobody_is_sent_to_another_site(people: People) -> None:
    people.person(EMAIL)
    for path in (
        "https://evil.example.com/",
        "//evil.example.com",
        "/\\evil.example.com",
        "x",
        "/\n",
    ):
        client = people.nobody()
        asked = {"email": EMAIL, "password": PASSWORD, "next": path}
        assert submit(client, "/sign-in", **asked).location == "/account"


def test_a_sign_in_that_is_refused_shows_the_form_again(people: People) -> None:
    client = people.nobody()
    answer = submit(client, "/sign-in", email=EMAIL, password="wrong password")
    assert (answer.status_code, heading(answer)) == (401, "Sign in")
    assert 'role="alert"' in answer.text
    assert EMAIL in answer.text
    assert "wrong password" not in answer.text
    for _ in range(5):
        answer = submit(client, "/sign-in", email=EMAIL, password="wrong password")
    assert answer.status_code == 429
    assert "try again in 30 seconds" in answer.text
    foreign = client.post("/sign-in", data={}, headers={"Origin": "https://evil.example.com"})
    assert (foreign.status_code, heading(foreign)) == (403, "This did not work")


def test_an_account_changes_its_name_password_and_tokens(people: People) -> None:
    people.person(EMAIL)
    client, other = signed_in(people), signed_in(people)
    assert submit(client, "/account/name", name="another <name>").status_code == 303
    assert "another &lt;name&gt;" in client.get("/account").text
    assert submit(client, "/account/name", name=" ").status_code == 400
    made = submit(client, "/account/tokens", title="ci", scope="read", days="30")
    token = re.search(r"slapos_\w+", made.text)
    assert token is not None
    assert people.with_token(token[0]).get("/v1/me").get_json()["scopes"] == ["read"]
    assert token[0] not in client.get("/account").text
    assert submit(client, "/account/tokens", title="ci", days="30").status_code == 400
    assert (
        submit(client, "/account/tokens", title="ci", scope="read", days="1000").status_code == 400
    )
    path = re.search(r"/account/tokens/\d+/revocation", client.get("/account").text)
    assert path is not None
    assert submit(client, path[0]).status_code == 303
    assert people.with_token(token[0]).get("/v1/me").status_code == 401
    wrong = submit(client, "/account/password", present_password="x", password=OTHER_PASSWORD)
    assert (wrong.status_code, heading(wrong)) == (401, "Your account")
    asked = {"present_password": PASSWORD, "password": OTHER_PASSWORD}
    assert submit(client, "/account/password", **asked).status_code == 303
    assert other.get("/account").location == "/sign-in"
    assert client.get("/account").status_code == 200


def test_sessions_are_ended_on_the_page(people: People) -> None:
    people.person(EMAIL)
    client, other = signed_in(people), signed_in(people)
    shown = client.get("/account").text
    assert shown.count("this one") == 1
    path = re.search(r"/account/sessions/\d+/end", shown)
    assert path is not None
    assert submit(client, path[0]).status_code == 303
    assert other.get("/account").location == "/sign-in"
    assert submit(client, "/sign-out").location == "/sign-in"
    assert client.get("/account").location == "/sign-in"


def test_an_invitation_is_accepted_on_its_page(people: People) -> None:
    project = people.project("shop", people.person(EMAIL))
    people.person("known@example.com")
    secrets = {}
    for email in ("new@example.com", "known@example.com"):
        with people.session() as session:
            found = people.find_project(session, project)
            _, secrets[email] = invitations.invite(
                session,
                people.clock,
                people.parts.identifiers,
                email=email,
                role=Role.CUSTOMER,
                project=found,
            )
    client, token = people.nobody(), secrets["new@example.com"]
    assert "shop" in client.get(f"/invitation?token={token}").text
    done = submit(client, "/invitation", token=token, name="new", password=PASSWORD)
    assert (done.status_code, done.location) == (303, "/account")
    token = secrets["known@example.com"]
    assert "Sign out first" in client.get(f"/invitation?token={token}").text
    assert submit(client, "/invitation", token=token).status_code == 403
    assert "Sign in to accept" in people.nobody().get(f"/invitation?token={token}").text
    known = signed_in(people, "known@example.com")
    assert "Accept as" in known.get(f"/invitation?token={token}").text
    assert submit(known, "/invitation", token=token).location == "/account"
    assert f"customer, {project}" in known.get("/account").text


def test_a_new_password_is_set_on_its_page(people: People) -> None:
    reference = people.person(EMAIL)
    with people.session() as session:
        person = people.find(session, reference)
        link = links.make_reset_link(session, people.clock, people.parts.identifiers, person, URL)
    path, client = link.removeprefix(URL), people.nobody()
    assert EMAIL in client.get(path).text
    token = path.partition("=")[2]
    assert submit(client, "/new-password", token=token, password=OTHER_PASSWORD).status_code == 303
    assert client.get("/account").status_code == 200
    assert client.get(path).status_code == 403
