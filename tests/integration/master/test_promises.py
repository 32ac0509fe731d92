"""Promises of instances as nodes tell of them: what is now, since when, and what was."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from slapos.master.app import create_app
from slapos.master.monitoring.model import InstancePromise, PromiseChange, PromiseReport
from slapos.master.monitoring.promises import KEPT, forget_old
from slapos.master.settings import Profile, Settings
from slapos.system.identifier import SystemIdentifiers
from tests.fakes import FakeClock, FakeIdentifiers
from tests.integration.master.factories import request_form
from tests.integration.master.full import World, by_header

CHANCE = SystemIdentifiers()


class Told:
    """A master with one instance, of which its node tells."""

    def __init__(self, world: World, clock: FakeClock) -> None:
        self.world, self.clock = world, clock
        world.as_("P-11").post("/requestComputerPartition", data=request_form("web"))
        self.reference = world.place("web", "COMP-1", "slappart0")

    def tell(self, *results: dict[str, Any], **fields: Any) -> dict[str, Any]:
        report = {
            "id": "".join(f"{ord(letter) % 16:x}" for letter in CHANCE.token(32)),
            "kind": "promises",
            "partition": "slappart0",
            "results": list(results),
            **fields,
        }
        answer = self.world.as_("COMP-1").post(
            "/v1/nodes/COMP-1/reports", json={"reports": [report]}
        )
        assert answer.status_code == 200, answer.text
        receipt: dict[str, Any] = answer.get_json()
        return receipt

    def now(self, who: str = "P-11") -> dict[str, Any]:
        answer = self.world.as_(who).get(f"/v1/instances/{self.reference}/promises")
        assert answer.status_code == 200, answer.text
        shown: dict[str, Any] = answer.get_json()
        return shown

    def history(self, **query: str) -> list[tuple[str, bool]]:
        url = f"/v1/instances/{self.reference}/promises/history"
        changes = []
        while True:
            answer = self.world.as_("P-11").get(url, query_string=query)
            assert answer.status_code == 200, answer.text
            page = answer.get_json()
            changes += [(each["name"], each["failed"]) for each in page["changes"]]
            if page["next"] is None:
                return changes
            query["after"] = page["next"]


@pytest.fixture
def told(settings: Settings, clock: FakeClock) -> Iterator[Told]:
    settings = Settings(database_url=settings.database_url, profile=Profile.FULL)
    app = create_app(settings, clock, FakeIdentifiers(), by_header)
    yield Told(World(app), clock)
    app.extensions["slapos"].database.close()


def holds(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "title": name, "failed": False, "message": "fine", **fields}


def fails(name: str, message: str = "it is down", **fields: Any) -> dict[str, Any]:
    return {"name": name, "title": name, "failed": True, "message": message, **fields}


def test_what_a_node_tells_is_shown(told: Told) -> None:
    assert told.now() == {"heard_at": None, "promises": []}
    since = (told.clock.now() - timedelta(minutes=3)).isoformat()
    told.tell(holds("listens"), fails("answers", at=since))
    assert told.now() == {
        "heard_at": told.clock.now().isoformat(),
        "promises": [
            {
                "name": "answers",
                "title": "answers",
                "failed": True,
                "message": "it is down",
                "since": since,
            },
            {
                "name": "listens",
                "title": "listens",
                "failed": False,
                "message": "fine",
                "since": told.clock.now().isoformat(),
            },
        ],
    }


def test_only_changes_are_history(told: Told) -> None:
    told.tell(holds("a"), holds("b"))
    assert told.history() == []
    told.tell(fails("a"), holds("b"))
    told.tell(fails("a", "it is down for another reason"), holds("b"))
    told.tell(holds("a"), fails("b"))
    assert told.history() == [("b", True), ("a", False), ("a", True)]
    assert told.history(name="b") == [("b", True)]
    assert told.history(limit="1") == [("b", True), ("a", False), ("a", True)]


def test_since_stays_until_it_changes(told: Told) -> None:
    began = told.clock.now().isoformat()
    told.tell(fails("a"))
    told.clock.advance(60)
    told.tell(fails("a", "another reason"))
    (promise,) = told.now()["promises"]
    assert (promise["since"], promise["message"]) == (began, "another reason")
    assert told.now()["heard_at"] == told.clock.now().isoformat()


def test_a_promise_that_is_no_more_goes(told: Told) -> None:
    told.tell(fails("a"), holds("b"))
    told.tell(holds("b"))
    assert [each["name"] for each in told.now()["promises"]] == ["b"]
    told.tell()
    assert told.now()["promises"] == []


def test_what_is_told_of_another_instance_counts_for_none(told: Told) -> None:
    receipt = told.tell(fails("a"), instance="SOFTINST-999")
    assert [each["code"] for each in receipt["refused"]] == ["not_found"]
    assert told.now()["promises"] == []
    assert told.tell(fails("a"), instance=told.reference)["refused"] == []


@pytest.mark.parametrize(
    "result",
    [
        {"name": "a"},
        {"name": "", "failed": True},
        {"name": "a", "failed": "yes"},
        {"name": "a", "failed": True, "at": "yesterday"},
        {"name": "a", "failed": True, "message": 1},
    ],
)
def test_nonsense_is_refused_alone(told: Told, result: dict[str, Any]) -> None:
    assert [each["code"] for each in told.tell(result)["refused"]] == ["invalid"]


def test_odd_texts_are_kept(told: Told) -> None:
    told.tell(fails("n\x00ul" * 100, "m\x00" * 10_000), fails("a", "\ud800"))
    assert len(told.now()["promises"]) == 2


def test_the_history_of_one_instance_has_an_end(told: Told) -> None:
    for number in range(KEPT // 100 + 2):
        make = fails if number % 2 else holds
        told.tell(*(make(f"p{each}") for each in range(100)))
    with told.world.session() as session:
        assert session.scalar(select(func.count()).select_from(PromiseChange)) == KEPT
    assert len(told.history(limit="500")) == KEPT


def test_old_history_is_forgotten(told: Told) -> None:
    told.tell(fails("a"))
    told.clock.advance(86400)
    told.tell(holds("a"))
    with told.world.session() as session:
        assert forget_old(session, told.clock.now()) == 1
        session.commit()
    assert told.history() == [("a", False)]


def test_others_do_not_see_it(told: Told) -> None:
    told.tell(fails("a"))
    for path in ("promises", "promises/history"):
        url = f"/v1/instances/{told.reference}/{path}"
        statuses = {
            who: told.world.as_(who).get(url).status_code for who in ("P-21", "P-12", "P-22")
        }
        assert statuses == {"P-21": 200, "P-12": 404, "P-22": 404}
    assert told.world.as_("P-11").get("/v1/instances/SOFTINST-999/promises").status_code == 404
    report = {"id": "0" * 32, "kind": "promises", "partition": "slappart0", "results": []}
    url = "/v1/nodes/COMP-1/reports"
    answer = told.world.as_("COMP-2").post(url, json={"reports": [report]})
    assert answer.status_code in (403, 404)
    assert len(told.now()["promises"]) == 1


def test_a_destroyed_instance_leaves_nothing(told: Told) -> None:
    told.tell(fails("a"))
    client = told.world.as_("P-11")
    client.post("/requestComputerPartition", data=request_form("web", state="destroyed"))
    where = {"computer_id": "COMP-1", "computer_partition_id": "slappart0"}
    answer = told.world.as_("COMP-1").post("/destroyedComputerPartition", data=where)
    assert answer.status_code == 200, answer.text
    with told.world.session() as session:
        for kind in (InstancePromise, PromiseChange, PromiseReport):
            assert session.scalar(select(func.count()).select_from(kind)) == 0
