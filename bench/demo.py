"""`make demo` in a fresh clone: from zero to healthy, split by phase."""

import json
import subprocess
import tempfile
from pathlib import Path

from bench.measure import Figure, show, timed
from bench.standalone import CHECKOUT


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="slapos-demo-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "-q", str(CHECKOUT), str(clone)], check=True)
        try:
            figures = [_run(clone, "from zero"), _run(clone, "again")]
        finally:
            subprocess.run(
                [
                    *(str(clone / ".venv/bin/slapos"), "standalone", "remove", "--yes"),
                    *("--directory", str(clone / "demo")),
                ],
                check=False,
            )
    show(figures)


def _run(clone: Path, name: str) -> Figure:
    seconds = timed(
        lambda: subprocess.run(["make", "demo"], cwd=clone, check=True, stdout=subprocess.DEVNULL)
    )
    phases = json.loads((clone / "demo" / "var" / "timings.json").read_text())
    return Figure(f"make demo, {name}", seconds, notes=phases)


if __name__ == "__main__":
    main()
