"""What somebody sends to a full master who wants to break it, or to come in."""

import pytest

from slapos.master.identity.caller import Role
from slapos.protocol.marshal import dumps
from tests.integration.master.people import People

#: Deeper than any parser goes.
DEEP = 200_000


@pytest.mark.parametrize(
    "header",
    [
        "X-SSL-Client-Cert",
        "X-Remote-User",
        "Remote-User",
        "X-Forwarded-User",
        "slapos.client_certificate",
        "X-Test-Caller",
    ],
)
def test_no_header_makes_a_stranger_somebody(people: People, header: str) -> None:
    reference = people.person("admin-1@example.com", (None, Role.ADMINISTRATOR))
    answer = people.nobody().get("/v1/me", headers={header: reference})
    assert answer.status_code == 401


def test_a_document_that_is_deeper_than_any_is_refused(people: People) -> None:
    people.person("admin-1@example.com", (None, Role.ADMINISTRATOR))
    browser = people.signed_in("admin-1@example.com")
    for deep in ("[" * DEEP, '{"a":' * DEEP):
        for path in ("/v1/projects", "/v1/sign-in", "/v1/nodes/join"):
            answer = browser.post(path, data=deep, content_type="application/json")
            assert answer.status_code == 400, (path, answer.get_json())


def test_entities_of_a_document_are_not_read(people: People) -> None:
    people.person("customer-1@example.com", ("PROJ-1", Role.CUSTOMER))
    browser = people.signed_in("customer-1@example.com")
    filters = dumps({"a": "b"}).decode().replace(">b<", ">&e;<")
    declared = '<!DOCTYPE marshal [<!ENTITY e SYSTEM "file:///etc/passwd">]>'
    at = filters.index("<marshal")
    sent = {
        "partition_reference": "a service",
        "software_release": "https://example.com/software.cfg",
        "filter_xml": filters[:at] + declared + filters[at:],
    }
    answer = browser.post("/requestComputerPartition", data=sent)
    assert answer.status_code == 400
    assert "document type" in answer.text


def test_a_reference_is_not_found_by_a_part_of_it(people: People) -> None:
    people.person("admin-1@example.com", (None, Role.ADMINISTRATOR))
    browser = people.signed_in("admin-1@example.com")
    assert browser.get("/v1/projects/PROJ-1").status_code == 200
    for other in ("PROJ-", "PROJ-01", "PROJ-1%20", "proj-1", "PROJ-%25", "PROJ-_", "1"):
        assert browser.get(f"/v1/projects/{other}").status_code == 404, other


def test_what_no_database_keeps_is_refused_in_words(people: People) -> None:
    people.person("admin-1@example.com", (None, Role.ADMINISTRATOR))
    browser = people.signed_in("admin-1@example.com")
    for path in (
        *("/v1/projects/PROJ-1%00", "/v1/nodes/COMP-1%00", "/v1/instances/SOFTINST-1%00"),
        *("/v1/instance-trees/HOSTSUBS-1%00", "/v1/products/PROD-1%00", "/v1/persons/P-1%00"),
        "/getComputerStatus?computer_id=COMP-1%00",
        "/getFullComputerInformation?computer_id=COMP-1%00",
    ):
        answer = browser.get(path)
        # SQLite keeps them, and has nothing of such a name.
        assert answer.status_code in (400, 404), (path, answer.text)
    sent = {"computer_id": "COMP-1\0", "computer_partition_id": "a\0b", "error_log": "c\0"}
    answer = browser.post("/softwareInstanceError", data=sent)
    assert answer.status_code in (400, 404), answer.text
