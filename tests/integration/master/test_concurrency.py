"""Many at once: nobody gets a failure of the master's own, no partition is given twice."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from flask import Flask
from sqlalchemy import func, select
from werkzeug.test import TestResponse

from slapos.master.app import create_app
from slapos.master.database import Database
from slapos.master.provisioning.model import SoftwareInstance
from slapos.master.settings import Settings
from slapos.protocol.marshal import dumps, loads
from slapos.protocol.messages import NodeInformation
from slapos.system.clock import SystemClock
from slapos.system.identifier import SystemIdentifiers
from tests.integration.master.factories import NODE, format_form, request_form

MANY = 20
Call = Callable[[int], TestResponse]


@pytest.fixture
def apps(settings: Settings) -> list[Flask]:
    """Two masters on one database, as two processes would be, with real time between attempts."""
    return [create_app(settings, SystemClock(), SystemIdentifiers()) for _ in range(2)]


@pytest.fixture(autouse=True)
def closed(apps: list[Flask]):  # type: ignore[no-untyped-def]
    yield
    for app in apps:
        app.extensions["slapos"].database.close()


def at_once(count: int, call: Call) -> list[TestResponse]:
    """Call it `count` times, all beginning at the same moment."""
    barrier = Barrier(count)

    def run(number: int) -> TestResponse:
        barrier.wait(30)
        return call(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def post(apps: list[Flask], call: str, number: int, **form: str) -> TestResponse:
    return apps[number % len(apps)].test_client().post(f"/{call}", data=form)


def statuses(answers: list[TestResponse]) -> Counter[int]:
    return Counter(answer.status_code for answer in answers)


def test_twenty_requests_for_five_partitions(apps: list[Flask], database: Database) -> None:
    post(apps, "loadComputerConfigurationFromXML", 0, **format_form(5))
    answers = at_once(
        MANY, lambda n: post(apps, "requestComputerPartition", n, **request_form(f"i{n}"))
    )
    assert statuses(answers) == {200: 5, 404: 15}
    refused = [answer.text for answer in answers if answer.status_code == 404]
    assert all("it has 5 partitions and all are busy" in text for text in refused)
    with database.reading() as session:
        held = session.scalars(select(SoftwareInstance.partition_id)).all()
    assert len(set(held)) == len(held) == 5


def test_twenty_times_the_same_request_is_one_instance(
    apps: list[Flask], database: Database
) -> None:
    post(apps, "loadComputerConfigurationFromXML", 0, **format_form(5))
    answers = at_once(
        MANY, lambda n: post(apps, "requestComputerPartition", n, **request_form("same"))
    )
    assert statuses(answers) == {200: MANY}
    assert len({answer.data for answer in answers}) == 1
    with database.reading() as session:
        assert session.scalar(select(func.count()).select_from(SoftwareInstance)) == 1


def test_everything_at_once_on_one_node(apps: list[Flask]) -> None:
    """Requests, reports, connections, bangs and formats, of which none needs to fail."""
    post(apps, "loadComputerConfigurationFromXML", 0, **format_form(30))
    post(apps, "requestComputerPartition", 0, **request_form())
    place = {"computer_id": NODE, "computer_partition_id": "slappart0"}

    def call(number: int) -> TestResponse:
        match number % 6:
            case 0:
                connection = dumps({"n": number}).decode()
                return post(
                    apps,
                    "setComputerPartitionConnectionXml",
                    number // 6,
                    connection_xml=connection,
                    **place,
                )
            case 1:
                return post(apps, "startedComputerPartition", number // 6, **place)
            case 2:
                return post(apps, "softwareInstanceBang", number // 6, message="m", **place)
            case 3:
                form = request_form(f"child{number}") | place
                return post(apps, "requestComputerPartition", number // 6, **form)
            case 4:
                form = request_form(f"s{number}", shared=True)
                return post(apps, "requestComputerPartition", number // 6, **form)
            case _:
                form = format_form(30 + number)
                return post(apps, "loadComputerConfigurationFromXML", number // 6, **form)

    answers = at_once(24, call)
    assert statuses(answers) == {200: 24}, [a.text for a in answers if a.status_code != 200]


def test_readers_see_one_moment(apps: list[Flask]) -> None:
    """The root and its child are stopped and started together, so nobody sees one of each."""
    post(apps, "loadComputerConfigurationFromXML", 0, **format_form(2))
    place = {"computer_id": NODE, "computer_partition_id": "slappart0"}
    post(apps, "requestComputerPartition", 0, **request_form())
    post(apps, "requestComputerPartition", 0, **(request_form("child") | place))

    def call(number: int) -> TestResponse:
        if number % 2:
            return post(apps, "softwareInstanceBang", number // 2, message="m", **place)
        client = apps[number // 2 % 2].test_client()
        return client.get(f"/getFullComputerInformation?computer_id={NODE}")

    answers = at_once(24, call)
    assert statuses(answers) == {200: 24}
    for answer in answers[::2]:
        node = NodeInformation.from_marshalled(loads(answer.data))
        stamps = {partition.timestamp for partition in node.partitions}
        assert len(stamps) <= 2
    final = apps[0].test_client().get(f"/getFullComputerInformation?computer_id={NODE}")
    node = NodeInformation.from_marshalled(loads(final.data))
    assert len({partition.timestamp for partition in node.partitions}) == 1
