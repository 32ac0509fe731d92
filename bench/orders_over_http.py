"""Orders over HTTP, beside an empty Flask view in the same web process and the same turns."""

import statistics
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

from sqlalchemy import insert

from bench import full_server
from bench.fleet import BEFORE, RELEASE
from bench.lean_client import LeanClient, get, post, post_json
from bench.measure import Figure
from bench.slapproxy_peer import free_port, running
from slapos.master.database import open_database
from slapos.master.identity.credentials import PersonalToken
from slapos.master.identity.one_way import hash_of
from slapos.master.settings import database_url
from slapos.protocol.marshal import dumps

CLIENTS = 4
TURNS, BATCH = 12, 25
CUSTOMERS = 100
EMPTY = get(full_server.EMPTY)
MARSHALLED = {
    "shared_xml": False,
    "partition_parameter_xml": {},
    "filter_xml": {},
    "state": "started",
}


def figures(url: str, folder: Path) -> list[Figure]:
    """Measure on a fleet's database."""
    _make_tokens(url)
    numbers = count()
    with ExitStack() as stack:
        port = free_port()
        command = [sys.executable, "-m", "bench.full_server", url, full_server.PLAIN, str(port)]
        stack.enter_context(running(command, port, folder / "full_server.log"))
        clients = [LeanClient() for _ in range(CLIENTS)]
        for client in clients:
            stack.callback(client.close)
        pool = stack.enter_context(ThreadPoolExecutor(CLIENTS))

        def ask(message: Callable[[], bytes]) -> Sequence[float]:
            def one(client: LeanClient) -> Sequence[float]:
                return client.times(port, [message() for _ in range(BATCH)])

            return [each for times in pool.map(one, clients) for each in times]

        found = []
        for name, message in (
            ("POST /v1/instance-trees", lambda: _rest(next(numbers))),
            ("SLAP requestComputerPartition", lambda: _slap(next(numbers))),
        ):
            turns = [(ask(message), ask(lambda: EMPTY)) for _ in range(TURNS)]
            found += _figures(name, turns)
    return found


def _figures(name: str, turns: Sequence[tuple[Sequence[float], Sequence[float]]]) -> list[Figure]:
    ours = sorted(each for times, _ in turns for each in times)
    empty = [each for _, times in turns for each in times]
    rate, limit = CLIENTS / statistics.mean(ours), CLIENTS / statistics.mean(empty)
    return [
        Figure(
            f"orders a second over HTTP, one web process, {CLIENTS} clients: {name}",
            rate,
            "/s",
            beside="an empty Flask view",
            beside_median=limit,
            ratio=rate / limit,
            runs=len(ours),
        ),
        Figure("the same: p50", statistics.median(ours), runs=len(ours)),
        Figure("the same: p99", ours[int(len(ours) * 0.99)], runs=len(ours)),
    ]


def _token(customer: int) -> str:
    return f"slapos_benchmark{customer:025}"


def _make_tokens(url: str) -> None:
    now = datetime.now(UTC)
    database = open_database(database_url(url))
    with database.writing.begin() as session:
        rows = [
            {
                "person_id": BEFORE + 1 + customer,
                "title": "benchmark",
                "hash": hash_of(_token(customer)),
                "scopes": "order",
                "created_at": now,
                "expires_at": now + timedelta(days=1),
                "used_at": now,
            }
            for customer in range(CUSTOMERS)
        ]
        session.execute(insert(PersonalToken), rows)
    database.close()


def _asked(number: int) -> tuple[str, str]:
    """Return a customer's header, and her project."""
    customer = number % CUSTOMERS
    return f"Bearer {_token(customer)}", f"PROJ-{BEFORE + 1 + customer % 10}"


def _rest(number: int) -> bytes:
    token, project = _asked(number)
    body = {"title": f"rest {number}", "software_url": RELEASE, "project": project}
    return post_json("/v1/instance-trees", body, Authorization=token)


def _slap(number: int) -> bytes:
    token, project = _asked(number)
    form = {
        "partition_reference": f"slap {number}",
        "software_release": RELEASE,
        "software_type": "default",
        "project_reference": project,
        **{name: dumps(value).decode() for name, value in MARSHALLED.items()},
    }
    return post("/requestComputerPartition", form, Authorization=token)
