"""A standalone of a benchmark's own, in a directory that goes with it."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parents[1]
SLAPOS = Path(sys.executable).with_name("slapos")


class Standalone:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        configuration = str(directory / "etc" / "slapos.cfg")
        self.environment = {**os.environ, "SLAPOS_CLIENT_CONFIGURATION": configuration}

    def slapos(self, *words: str) -> str:
        """Run `slapos …`, which has to succeed."""
        done = subprocess.run(
            [str(SLAPOS), *words],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(
                f"slapos {' '.join(words)} ended with {done.returncode}\n{done.stderr}"
            )
        return done.stdout

    def json(self, *words: str) -> Any:
        return json.loads(self.slapos(*words, "--json"))


@contextmanager
def standalone(*options: str) -> Iterator[Standalone]:
    """Start one, and remove it with everything at the end."""
    directory = Path(tempfile.mkdtemp(prefix="slapos-bench-", dir="/tmp"))
    directory.chmod(0o755)
    here = ("--directory", str(directory))
    machine = Standalone(directory)
    machine.slapos("standalone", "start", *here, *options)
    try:
        yield machine
    finally:
        machine.slapos("standalone", "remove", "--yes", *here)
