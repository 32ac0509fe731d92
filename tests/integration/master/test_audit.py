"""The audit log of a full master: who has changed what, told to who may know."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import event, func, select

from slapos.master.app import create_app
from slapos.master.audit import service
from slapos.master.audit.model import AuditEntry
from slapos.master.audit.tasks import TASKS
from slapos.master.catalog.model import SoftwareProduct, SoftwareRelease
from slapos.master.certificates.model import CertificateAuthority, IssuedCertificate
from slapos.master.identity.caller import ANONYMOUS, Role, serve
from slapos.master.identity.credentials import Password
from slapos.master.nodes.model import ComputerNetwork
from slapos.master.provisioning.model import InstanceTree
from slapos.master.settings import Profile, Settings
from slapos.master.tasks.task import Turn
from tests.fakes import FakeClock, FakeIdentifiers
from tests.integration.master.factories import request_form
from tests.integration.master.full import World, by_header

REQUEST = "/requestComputerPartition"


@pytest.fixture
def world(database_uri: str, settings: Settings, clock: FakeClock) -> Iterator[World]:
    settings = Settings(database_url=settings.database_url, profile=Profile.FULL)
    app = create_app(settings, clock, FakeIdentifiers(), by_header)
    yield World(app)
    app.extensions["slapos"].database.close()


def order(client: FlaskClient, title: str, **fields: object) -> None:
    headers = {"X-Request-Id": f"order-of-{title}"}
    answer = client.post(REQUEST, data=request_form(title, **fields), headers=headers)
    assert answer.status_code in (200, 408), answer.text


def entries(client: FlaskClient, query: str = "") -> list[dict[str, Any]]:
    answer = client.get(f"/v1/audit?{query}")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.get_json()["entries"]
    return found


def told(found: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [(each["act"], each["object_kind"], each["caller"]) for each in found]


def test_an_order_is_written_down_with_who_and_by_which_request(world: World) -> None:
    order(world.as_("P-11"), "web", parameters={"password": "5ecret"})
    found = entries(world.as_("P-11"), "caller=P-11")
    assert sorted(told(found)) == [
        ("create", "instance", "P-11"),
        ("create", "instance tree", "P-11"),
    ]
    for each in found:
        assert each["request_id"] == "order-of-web"
        assert each["caller_kind"] == "person"
        assert each["changes"]["title"] == [None, "web"]
    assert "5ecret" not in str(found)


def test_a_change_tells_what_was_and_what_is(world: World) -> None:
    order(world.as_("P-11"), "web")
    reference = world.place("web", "COMP-1", "slappart0")
    order(world.as_("P-11"), "web", state="stopped", parameters={"a": "5ecret"})
    found = entries(world.as_("P-11"), f"object={reference}&caller=P-11")
    assert found[0]["act"] == "change"
    assert found[0]["changes"]["requested_state"] == ["started", "stopped"]
    assert found[0]["changes"]["parameters"] == [None, None]
    by_system = entries(world.as_("P-11"), f"object={reference}&caller=system")
    assert by_system[0]["changes"].keys() >= {"node_id", "partition_id"}


def test_what_a_node_reports_is_no_change(world: World) -> None:
    order(world.as_("P-11"), "web")
    world.place("web", "COMP-1", "slappart0")
    place = {"computer_id": "COMP-1", "computer_partition_id": "slappart0"}
    assert world.as_("COMP-1").post("/startedComputerPartition", data=place).status_code == 200
    assert entries(world.as_("P-21"), "caller=COMP-1") == []


def test_others_of_another_project_are_told_nothing(world: World) -> None:
    order(world.as_("P-11"), "web")
    assert entries(world.as_("P-12"), "caller=P-11") == []
    assert entries(world.as_("P-22"), "caller=P-11") == []
    assert entries(world.as_("COMP-1")) == []
    assert len(entries(world.as_("P-21"), "caller=P-11")) == 2
    assert world.app.test_client().get("/v1/audit").status_code == 401


def test_an_administrator_sees_all(world: World) -> None:
    with world.session() as session:
        world.person(session, 99, (None, Role.ADMINISTRATOR))
        session.commit()
    found = entries(world.as_("P-99"), "limit=500&caller=system")
    assert {each["object"] for each in found} >= {"COMP-1", "COMP-2", "P-11", "PROJ-2"}


def test_personal_data_is_not_told(world: World) -> None:
    with world.session() as session:
        changes = session.scalars(
            select(AuditEntry.changes).where(AuditEntry.object == "P-11")
        ).one()
    assert changes["name"] == [None, "person 11"]
    assert changes["email"] == [None, None]


def test_it_can_be_looked_for_by_time(world: World, clock: FakeClock) -> None:
    for title in ("one", "two", "three"):
        clock.advance(60)
        order(world.as_("P-11"), title)
    minute = clock.now() - timedelta(minutes=1)

    def titles(**query: str) -> set[str]:
        answer = world.as_("P-11").get("/v1/audit", query_string=query | {"caller": "P-11"})
        return {each["changes"]["title"][1] for each in answer.get_json()["entries"]}

    assert titles(since=minute.isoformat()) == {"two", "three"}
    assert titles(until=minute.isoformat()) == {"one"}
    assert world.as_("P-11").get("/v1/audit?since=2026-01-01T00:00:00").status_code == 400


def test_pages_go_back_in_time(world: World) -> None:
    order(world.as_("P-11"), "one")
    order(world.as_("P-11"), "two")
    seen, query = [], "limit=1&caller=P-11"
    while True:
        page = world.as_("P-11").get(f"/v1/audit?{query}").get_json()
        seen += [each["changes"]["title"][1] for each in page["entries"]]
        if page["next"] is None:
            break
        query = f"limit=1&caller=P-11&after={page['next']}"
    assert seen == ["two", "two", "one", "one"]


def test_what_is_undone_is_not_written_down(world: World) -> None:
    with world.session() as session:
        before = session.scalar(select(func.count()).select_from(AuditEntry))
        tree = InstanceTree(
            project_id=1, owner_id=11, title="x", shared=False, created_at=world.parts.clock.now()
        )
        session.add(tree)
        session.flush()
        session.rollback()
        assert session.scalar(select(func.count()).select_from(AuditEntry)) == before


def test_a_deletion_is_written_down(world: World) -> None:
    with world.session() as session:
        network = ComputerNetwork(
            reference="NET-7", title="lan", project_id=1, created_at=world.parts.clock.now()
        )
        session.add(network)
        session.commit()
        session.delete(network)
        session.commit()
        found = session.scalars(select(AuditEntry).where(AuditEntry.object == "NET-7")).all()
    assert [each.act for each in found] == ["create", "delete"]


def test_what_is_done_with_a_part_is_told_of_the_whole(world: World) -> None:
    now = world.parts.clock.now()
    with world.session() as session:
        product = SoftwareProduct(
            reference="PROD-7", project_id=1, title="database", created_at=now
        )
        url = "https://example.org/a.cfg"
        product.releases = [SoftwareRelease(url=url, effective_at=now, created_at=now)]
        session.add_all([product, Password(person_id=11, hash="5ecret", changed_at=now)])
        session.commit()
        session.delete(product.releases[0])
        session.commit()
    found = entries(world.as_("P-21"), "object=PROD-7")
    assert [each["act"] for each in found] == ["change", "change", "create"]
    assert found[0]["changes"]["software_releases.url"] == [url, None]
    assert found[1]["changes"]["software_releases.url"] == [None, url]
    changed = entries(world.as_("P-11"), "object=P-11")[0]
    assert changed["changes"]["passwords.hash"] == [None, None]
    assert "5ecret" not in str(changed)


def test_a_certificate_is_told_when_it_is_made_and_revoked(world: World, clock: FakeClock) -> None:
    now = clock.now()
    with world.session() as session:
        authority = CertificateAuthority(
            state="trusted",
            fingerprint="f" * 64,
            certificate="PEM",
            sealed_key="5ecret",
            created_at=now,
            signs_from=now,
            not_after=now,
        )
        certificate = IssuedCertificate(
            serial="1f",
            authority=authority,
            kind="person",
            person_id=11,
            issued_at=now,
            not_after=now,
        )
        session.add(certificate)
        session.commit()
        certificate.revoke(now)
        session.commit()
    found = entries(world.as_("P-11"), "object=1f")
    assert told(found) == [("change", "certificate", "system"), ("create", "certificate", "system")]
    assert found[0]["changes"]["revoked_at"] == [None, now.isoformat()]


def test_many_changes_are_one_statement(world: World) -> None:
    asked: list[str] = []
    engine = world.parts.database.engine
    event.listen(engine, "before_cursor_execute", lambda *told: asked.append(told[2]))
    with world.session() as session:
        for number in range(100, 140):
            session.add(
                InstanceTree(
                    project_id=1,
                    owner_id=11,
                    title=str(number),
                    shared=False,
                    created_at=world.parts.clock.now(),
                )
            )
        session.flush()
    assert len([each for each in asked if "INTO audit_log" in each]) == 1


def test_passwords_in_urls_are_not_told(world: World) -> None:
    order(world.as_("P-11"), "web", software_release="https://joe:5ecret@example.org/software.cfg")
    found = entries(world.as_("P-11"), "caller=P-11")
    assert "5ecret" not in str(found)
    assert "https://…@example.org/software.cfg" in str(found)


def test_old_entries_go_by_the_task_and_nothing_else(world: World, clock: FakeClock) -> None:
    order(world.as_("P-11"), "old")
    clock.advance(400 * 24 * 3600 + 1)
    order(world.as_("P-11"), "new")
    with world.session() as session:
        task = TASKS[0]
        turn = Turn(
            session=session,
            clock=clock,
            identifiers=world.parts.identifiers,
            settings=world.parts.settings,
            policy=world.parts.policy,
        )
        assert task.run(turn).count > 0
        assert task.run(turn).count == 0
        session.commit()
    assert len(entries(world.as_("P-11"))) == 2
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert world.as_("P-21").open("/v1/audit", method=method).status_code == 405


def test_nobody_is_told_of_what_is_nobodys(world: World) -> None:
    with world.session() as session:
        serve(session, ANONYMOUS)
        assert session.scalars(service.entries(session)).all() == []


def plan(world: World, statement: Any, values: Mapping[str, Any]) -> str:
    engine = world.parts.database.engine
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            connection.exec_driver_sql("SET LOCAL enable_sort = off")
        text = str(statement.compile(engine, compile_kwargs={"literal_binds": True}))
        verb = "EXPLAIN " if engine.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN "
        return "\n".join(str(row) for row in connection.exec_driver_sql(verb + text))


@pytest.mark.parametrize("who", ["P-11", "P-21", "system"])
@pytest.mark.parametrize("sought", ["object", "caller", "nothing"])
def test_a_page_goes_by_an_index(world: World, who: str, sought: str) -> None:
    with world.session() as session:
        if who != "system":
            from tests.integration.master.full import caller_of_reference  # noqa: PLC0415

            serve(session, caller_of_reference(session, who))
        filters: dict[str, Any] = {} if sought == "nothing" else {sought: "X-1"}
        statement = service.entries(session, **filters)
    ordered = statement.order_by(AuditEntry.at.desc(), AuditEntry.id.desc()).limit(10)
    found = plan(world, ordered, {})
    assert "ix_audit_log" in found
    assert "SCAN audit_log\n" not in found
