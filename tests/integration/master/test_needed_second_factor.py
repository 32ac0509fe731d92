"""Who needs a second factor by her roles can do nothing without one, but have one."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from flask.testing import FlaskClient

from slapos.master.certificates import authorities
from slapos.master.certificates.showing import CERTIFICATE
from slapos.master.certificates.views import BOX
from slapos.master.identity import service
from slapos.master.identity.caller import Role
from slapos.master.settings import Settings
from slapos.protocol.certificate_request import make_key, make_request
from tests.fakes import FakeClock
from tests.integration.master.people import PASSWORD, People, code_of
from tests.integration.master.test_second_factor import enrol, present_code

EMAIL = "customer-1@example.com"


@pytest.fixture
def people(settings: Settings, clock: FakeClock, tmp_path: Path) -> Iterator[People]:
    secret = tmp_path / "secret"
    secret.write_text("s" * 64)
    secret.chmod(0o600)
    roles = frozenset({Role.ADMINISTRATOR})
    people = People(replace(settings, secret_file=secret, second_factor_roles=roles), clock)
    with people.session() as session:
        issuing = authorities.Issuing(clock, people.app.extensions[BOX])
        authorities.ensure_authority(session, issuing)
    yield people
    people.close()


def may(client: FlaskClient) -> str:
    """Return what a client is told that asks for something."""
    answer = client.get("/v1/projects")
    return "all" if answer.status_code == 200 else code_of(answer)


def test_an_administrator_can_only_have_a_second_factor_until_she_has_one(people: People) -> None:
    people.person(EMAIL, (None, Role.ADMINISTRATOR))
    client = people.signed_in(EMAIL)
    assert client.get("/v1/me").get_json()["must_enrol"] is True
    for method, path in (
        ("GET", "/v1/projects"),
        ("GET", "/v1/audit"),
        ("GET", "/v1/tokens"),
        ("POST", "/v1/tokens"),
        ("POST", "/v1/me/certificates"),
        ("PUT", "/v1/me/password"),
        ("GET", "/v1/nodes"),
        ("GET", "/v1/instance-trees"),
        ("GET", "/hateoas/documents/"),
    ):
        answer = client.open(path, method=method, json={} if method != "GET" else None)
        assert answer.status_code in (403, 404), (path, answer.text)
        assert answer.status_code == 404 or code_of(answer) == "second_factor_required"
    enrol(people, client)
    assert may(client) == "all"
    assert client.get("/v1/me").get_json()["must_enrol"] is False


def test_what_is_open_to_all_is_not_answered_to_her_as_to_somebody(people: People) -> None:
    people.person(EMAIL, (None, Role.ADMINISTRATOR))
    client = people.signed_in(EMAIL)
    request = make_request(make_key(), "P-1")
    answer = client.post("/v1/certificates/renewals", json={"certificate_request": request})
    assert answer.status_code == 401
    assert client.get("/v1/authority").status_code == 200
    assert client.post("/v1/sign-out").status_code == 204
    assert client.get("/v1/me").status_code == 401


def test_others_need_none(people: People) -> None:
    people.project("shop", people.person(EMAIL))
    assert may(people.signed_in(EMAIL)) == "all"


def test_tokens_and_certificates_count_only_with_a_second_factor(people: People) -> None:
    reference = people.person(EMAIL)
    client = people.signed_in(EMAIL)
    program = people.with_token(people.token(client, "read"))
    request = make_request(make_key(), reference)
    answer = client.post("/v1/me/certificates", json={"certificate_request": request})
    pem = answer.get_json()["certificate"]
    shown = people.nobody()
    certificate = x509.load_pem_x509_certificate(pem.encode())
    shown.environ_base[CERTIFICATE] = certificate.public_bytes(  # type: ignore[assignment]
        serialization.Encoding.DER
    )
    assert [may(each) for each in (program, shown, client)] == ["all"] * 3
    with people.session() as session:
        person = people.find(session, reference)
        service.add_role(session, people.clock, person, None, Role.ADMINISTRATOR)
    told = [may(each) for each in (program, shown, client)]
    assert told == ["second_factor_required"] * 3
    enrol(people, client)
    assert [may(each) for each in (program, shown, client)] == ["all"] * 3


def test_a_project_can_ask_it_of_its_people(people: People) -> None:
    owner = people.person("manager-1@example.com")
    project = people.project("bank", owner)
    people.person(EMAIL, (project, Role.CUSTOMER))
    manager, customer = people.signed_in("manager-1@example.com"), people.signed_in(EMAIL)
    path = f"/v1/projects/{project}"
    assert customer.patch(path, json={"needs_second_factor": True}).status_code == 403
    answer = manager.patch(path, json={"needs_second_factor": True})
    assert answer.get_json()["needs_second_factor"] is True
    assert may(customer) == may(manager) == "second_factor_required"
    enrol(people, customer)
    assert may(customer) == "all"


def test_the_page_shows_how_and_nothing_else(people: People) -> None:
    people.person(EMAIL, (None, Role.ADMINISTRATOR))
    client = people.signed_in(EMAIL)
    page = client.get("/account")
    assert page.status_code == 200
    assert "You need a second factor" in page.text
    for other in ("Make a token", "Change the password", "Where you have signed in"):
        assert other not in page.text
    own = {"Sec-Fetch-Site": "same-origin"}
    assert client.post("/account/name", data={"name": "x"}, headers=own).status_code == 403
    assert client.post("/account/second-factor", headers=own).status_code == 303
    secret = client.get("/account").text.partition('<code class="secret">')[2].partition("<")[0]
    code = {"code": present_code(people, secret)}
    shown = client.post("/account/second-factor/confirmation", data=code, headers=own)
    assert "Your recovery codes" in shown.text
    assert "Make a token" in client.get("/account").text


def test_who_has_lost_it_comes_back_to_have_another_one(people: People) -> None:
    people.person(EMAIL, (None, Role.ADMINISTRATOR))
    client = people.signed_in(EMAIL)
    _, codes = enrol(people, client)
    asked = {"email": EMAIL, "password": PASSWORD, "code": codes[0]}
    again = people.nobody()
    assert again.post("/v1/sign-in", json=asked).status_code == 200
    assert again.post("/v1/me/second-factor/removal", json={"code": codes[1]}).status_code == 204
    assert may(again) == may(client) == "second_factor_required"
    enrol(people, again)
    assert may(again) == "all"
