"""A process that orders and destroys over SLAP, in several threads, as a web process is asked to.

`ordering_process URI NUMBER COUNT` waits for a line, then orders COUNT services `<NUMBER>-<n>`; of
those that are placed each other one is destroyed, and confirmed by its node, when a second line
has come. After each it prints a JSON object of how often each status was answered.
"""

import json
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from flask import Flask

from slapos.master.app import create_app
from slapos.master.settings import Profile, Settings, database_url
from slapos.protocol.marshal import Marshalled, loads
from tests.integration.master.factories import request_form
from tests.integration.master.full import HEADER, by_header

THREADS = 3
#: Who order: two customers of one project.
CUSTOMERS = ("P-11", "P-33")
ORDER = "/requestComputerPartition"


class Customer:
    """Orders services, and remembers where they are."""

    def __init__(self, app: Flask, number: str) -> None:
        self.app, self.number = app, number
        self.places: dict[int, dict[str, str]] = {}

    def post(self, who: str, path: str, form: dict[str, str]) -> tuple[int, bytes]:
        answer = self.app.test_client().post(path, data=form, headers={HEADER: who})
        return answer.status_code, answer.data

    def form(self, each: int, **fields: object) -> dict[str, str]:
        return request_form(f"{self.number}-{each}", project_reference="PROJ-1", **fields)

    def order(self, each: int) -> int:
        status, content = self.post(CUSTOMERS[each % 2], ORDER, self.form(each))
        if status == 200:
            told = loads(content)
            assert isinstance(told, Marshalled)
            self.places[each] = {
                "computer_id": told.state["slap_computer_id"],
                "computer_partition_id": told.state["slap_computer_partition_id"],
            }
        return status

    def destroy(self, each: int) -> int:
        form = self.form(each, state="destroyed")
        status, _ = self.post(CUSTOMERS[each % 2], ORDER, form)
        if status >= 500:
            return status
        place = self.places.pop(each)
        return self.post(place["computer_id"], "/destroyedComputerPartition", place)[0]


def main(uri: str, number: str, count: int) -> None:
    """Order, and destroy."""
    settings = Settings(database_url=database_url(uri), profile=Profile.FULL)
    customer = Customer(create_app(settings, authenticate=by_header), number)
    print("ready", flush=True)
    with ThreadPoolExecutor(THREADS) as pool:
        sys.stdin.readline()
        print(json.dumps(Counter(pool.map(customer.order, range(count)))), flush=True)
        sys.stdin.readline()
        going = sorted(customer.places)[::2]
        print(json.dumps(Counter(pool.map(customer.destroy, going))), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
