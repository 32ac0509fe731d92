"""Both runners, and a program that either can run: its text is the body of `main()`."""

import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from slapos.system.clock import SystemClock
from slapos.system.runner import Result, Runner, SystemRunner
from slapos.system.warm_request import WarmProgram
from slapos.system.warm_runner import WarmRunner

ENVIRONMENT = {"PATH": os.environ["PATH"]}
PROGRAM = "program.py"
#: Becomes what its arguments say.
EXEC = "os.execvp(sys.argv[1], sys.argv[1:])"
TEXT = """\
import os, sys, time
from functools import partial
from pathlib import Path

def main():
    {body}

if __name__ == "__main__":
    sys.exit(main())
"""


def recognise(argv: Sequence[str], cold_first: int) -> WarmProgram | None:
    if argv[0] == sys.executable and Path(argv[1]).name == PROGRAM:
        return WarmProgram("program", tuple(argv[2:]), argv[1], cold_first)
    return None


def warm_runner(
    cold: Runner | None = None,
    modules: Sequence[str] = ("json",),
    environment: Mapping[str, str] = ENVIRONMENT,
    cold_first: int = 0,
) -> WarmRunner:
    return WarmRunner(
        cold or SystemRunner(patience=0.2),
        python=sys.executable,
        modules=modules,
        recognise=partial(recognise, cold_first=cold_first),
        environment=environment,
        clock=SystemClock(),
        patience=0.2,
    )


def program(folder: Path, body: str = EXEC) -> Path:
    """Write a program and return it."""
    path = folder / PROGRAM
    path.write_text(TEXT.format(body=body.strip().replace("\n", "\n    ")))
    path.chmod(0o755)
    return path


def run(runner: Runner, path: Path, *arguments: str, **options: Any) -> Result:
    """Run a program in its folder."""
    given: dict[str, Any] = {"cwd": path.parent, "environment": ENVIRONMENT, **options}
    return runner.run([sys.executable, str(path), *arguments], **given)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
