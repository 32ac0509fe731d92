"""Bring Kinto's database to this version of Kinto, and make its administrator, once for each.

usage: prepare.py KINTO_INI PASSWORD_FILE DONE_FILE
"""

import hashlib
import sys
import time
from importlib.metadata import version
from pathlib import Path

import psycopg2
from kinto.core.scripts import migrate
from kinto.plugins.accounts.scripts import create_user
from pyramid.paster import bootstrap

PATIENCE = 300.0
"""Seconds to wait for the database: it may be on its first start, on another machine."""


def main(ini: Path, password_file: Path, done_file: Path) -> None:
    """Do what is not done yet; the file that says so is written last."""
    password = password_file.read_text().strip()
    environment = bootstrap(str(ini), options={"command": "migrate"})
    settings = environment["registry"].settings
    url = settings["storage_url"]
    wanted = hashlib.sha256("\n".join([version("kinto"), url, password]).encode()).hexdigest()
    if done_file.exists() and done_file.read_text() == wanted:
        return
    wait_for_database(url)
    migrate(environment)
    if create_user(environment, username="admin", password=password):
        sys.exit("the account of the administrator cannot be made")
    unfinished = done_file.with_suffix(".unfinished")
    unfinished.write_text(wanted)
    unfinished.replace(done_file)


def wait_for_database(url: str) -> None:
    """Return once the database takes connections; end the program when it never does."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            psycopg2.connect(url, connect_timeout=5).close()
            return
        except psycopg2.OperationalError as error:
            if time.monotonic() > deadline:
                sys.exit(f"the database does not answer: {error}")
            time.sleep(0.5)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
