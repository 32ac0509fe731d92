"""What the command line costs before it does anything."""

import os
import subprocess
import sys
from pathlib import Path

from bench.measure import in_turn, show

#: Compiled files are used, as they are for every user.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


def call(*argv: str) -> None:
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, env=ENVIRONMENT)


def main() -> None:
    slapos = str(Path(sys.executable).with_name("slapos"))
    figure = in_turn(
        "slapos --help",
        lambda: call(slapos, "--help"),
        "python -c pass",
        lambda: call(sys.executable, "-c", "pass"),
        runs=15,
    )
    show([figure])


if __name__ == "__main__":
    main()
