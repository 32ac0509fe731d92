"""A process that does tasks, as a web process does; it ends when its standard input does.

Each key leaves a row. With the key "stuck" it waits, with its work done and not committed, for as
long as a file is there.
"""

import sys
from pathlib import Path

from sqlalchemy import text

from slapos.master.database import open_database
from slapos.master.provisioning.policy import LocalPolicy
from slapos.master.settings import Settings, database_url
from slapos.master.tasks.runner import Runner
from slapos.master.tasks.task import Done, Task, Turn
from slapos.master.tasks.worker import Doors, make_rows
from slapos.system.clock import SystemClock
from slapos.system.identifier import SystemIdentifiers

NAME = "leave_rows"
CLOCK = SystemClock()


def main(uri: str, folder: str) -> None:
    """Do tasks."""
    stuck = Path(folder) / "stuck"

    def run(turn: Turn) -> Done:
        keys = turn.keys or ()
        for key in keys:
            turn.session.execute(text("INSERT INTO effects (key) VALUES (:key)"), {"key": key})
        if "stuck" in keys:
            (Path(folder) / "reached").touch()
            while stuck.exists():
                CLOCK.sleep(0.01)
        return Done(count=len(keys))

    settings = Settings(database_url=database_url(uri))
    database = open_database(settings.database_url)
    doors = Doors(
        database=database,
        clock=CLOCK,
        identifiers=SystemIdentifiers(),
        settings=settings,
        policy=LocalPolicy("computer"),
    )
    tasks = {NAME: Task(name=NAME, summary="leave rows", run=run, batch=5)}
    make_rows(doors, tasks)
    runner = Runner(doors, tasks)
    runner.start()
    print("ready", flush=True)
    runner.wake()
    for _line in sys.stdin:
        runner.wake()
    runner.stop()
    while runner.is_working:
        CLOCK.sleep(0.01)
    database.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
