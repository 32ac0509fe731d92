"""Many people at once, on several processes: nobody comes in twice, and the last ones stay."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from flask.testing import FlaskClient

from slapos.master.app import create_app
from slapos.master.identity.caller import Role
from slapos.master.identity.tasks import TASKS
from slapos.master.settings import Settings
from slapos.master.tasks.task import Turn
from slapos.system.clock import SystemClock
from slapos.system.identifier import SystemIdentifiers
from tests.fakes import FakeClock
from tests.integration.master.people import PASSWORD, People


class TwoMasters(People):
    """Two masters on one database, as two processes would be, with real time between attempts."""

    def __init__(self, settings: Settings, clock: FakeClock) -> None:
        super().__init__(settings, clock)
        self.apps = [
            create_app(self.parts.settings, SystemClock(), SystemIdentifiers()) for _ in range(2)
        ]

    def close(self) -> None:
        for app in self.apps:
            app.extensions["slapos"].database.close()
        super().close()

    def client_of(self, number: int, token: str = "") -> FlaskClient:
        client = self.apps[number % len(self.apps)].test_client()
        client.environ_base["REMOTE_ADDR"] = "2001:db8::1"
        if token:
            client.set_cookie("__Host-slapos", token)
        return client


@pytest.fixture
def people(settings: Settings) -> Iterator[TwoMasters]:
    people = TwoMasters(settings, FakeClock(SystemClock().now()))
    yield people
    people.close()


def at_once(count: int, call: Callable[[int], int]) -> Counter[int]:
    barrier = Barrier(count)

    def run(number: int) -> int:
        barrier.wait(30)
        return call(number)

    with ThreadPoolExecutor(count) as pool:
        return Counter(pool.map(run, range(count)))


def test_one_becomes_the_first_administrator(people: TwoMasters) -> None:
    secrets = [people.setup_secret(), people.setup_secret()]

    def set_up(number: int) -> int:
        asked = {"token": secrets[number % 2], "name": "operator", "password": PASSWORD}
        email = f"operator-{number}@example.com"
        answer = people.client_of(number // 2).post("/v1/setup", json={**asked, "email": email})
        return answer.status_code

    assert at_once(8, set_up) == {200: 1, 403: 7}


def test_an_invitation_is_accepted_once(people: TwoMasters) -> None:
    project = people.project("shop", people.person("manager-1@example.com"))
    manager = people.signed_in("manager-1@example.com")
    asked = {"email": "new@example.com", "role": "customer"}
    token = manager.post(f"/v1/projects/{project}/invitations", json=asked).get_json()["token"]

    def accept(number: int) -> int:
        asked = {"token": token, "name": "new", "password": PASSWORD}
        return people.client_of(number).post("/v1/invitations/acceptance", json=asked).status_code

    assert at_once(8, accept) == {200: 1, 403: 7}


def test_guesses_at_once_are_counted_each(people: TwoMasters) -> None:
    people.person("customer-1@example.com")

    def guess(number: int) -> int:
        asked = {"email": "customer-1@example.com", "password": f"guess {number}"}
        return people.client_of(number).post("/v1/sign-in", json=asked).status_code

    assert at_once(12, guess) == {401: 5, 429: 7}


def test_two_administrators_who_remove_each_other_leave_one(people: TwoMasters) -> None:
    names = [f"operator-{number}@example.com" for number in range(2)]
    references = [people.person(name, (None, Role.ADMINISTRATOR)) for name in names]
    cookies = []
    for name in names:
        cookie = people.signed_in(name).get_cookie("__Host-slapos")
        assert cookie is not None
        cookies.append(cookie.value)

    def remove_the_other(number: int) -> int:
        client = people.client_of(number, cookies[number])
        path = f"/v1/persons/{references[1 - number]}/roles/administrator"
        return client.delete(path).status_code

    done = at_once(2, remove_the_other)
    # Whoever comes second is no administrator any more, or is told that the other is the last.
    assert done[204] == 1, done
    assert done[403] + done[404] + done[409] == 1, done


def test_two_managers_who_remove_each_other_leave_one(people: TwoMasters) -> None:
    names = [f"manager-{number}@example.com" for number in range(2)]
    owner = people.person("owner@example.com")
    project = people.project("shop", owner)
    references = [people.person(name, (project, Role.PRODUCTION_MANAGER)) for name in names]
    members = f"/v1/projects/{project}/members"
    path = f"{members}/{owner}/production_manager"
    assert people.signed_in(names[0]).delete(path).status_code == 204
    cookies = []
    for name in names:
        cookie = people.signed_in(name).get_cookie("__Host-slapos")
        assert cookie is not None
        cookies.append(cookie.value)

    def remove_the_other(number: int) -> int:
        client = people.client_of(number, cookies[number])
        return client.delete(f"{members}/{references[1 - number]}/production_manager").status_code

    done = at_once(2, remove_the_other)
    assert done[204] == 1, done
    assert done[403] + done[404] + done[409] == 1, done


def test_what_is_over_is_forgotten(people: TwoMasters) -> None:
    people.person("customer-1@example.com")
    people.signed_in("customer-1@example.com")
    people.sign_in(people.nobody(), "customer-1@example.com", "wrong")
    people.setup_secret()
    counts = []
    for seconds in (0, 8 * 24 * 3600, 0):
        people.clock.advance(seconds)
        with people.session() as session:
            turn = Turn(
                session=session,
                clock=people.clock,
                identifiers=people.parts.identifiers,
                settings=people.parts.settings,
                policy=people.parts.policy,
            )
            counts.append(TASKS[0].run(turn).count)
    # A session, a link, and the attempts of the account and of the address.
    assert counts == [0, 4, 0]
