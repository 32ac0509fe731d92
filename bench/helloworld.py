"""From request to healthy, the release already built; and what that costs at the least."""

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.measure import Figure, show, timed
from bench.standalone import CHECKOUT, standalone

RELEASE = str(CHECKOUT / "software" / "helloworld")
RUNS = 7

#: A buildout that has nothing to do: Python's start, the import of buildout, one empty profile.
EMPTY = "[buildout]\nparts =\noffline = true\n"


def empty_buildout(folder: Path) -> None:
    (folder / "buildout.cfg").write_text(EMPTY)
    command = "import sys; from slapos.recipes.buildout.main import main; sys.exit(main())"
    subprocess.run(
        [sys.executable, "-c", command, "-U"],
        cwd=folder,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def main() -> None:
    with (
        standalone("--partitions", str(RUNS + 1)) as machine,
        tempfile.TemporaryDirectory() as folder,
    ):
        first = timed(lambda: machine.slapos("request", "first", RELEASE, "--wait"))
        empty_buildout(Path(folder))
        ours, bare = [], []
        for number in range(RUNS):
            title = f"hello{number}"
            ours.append(timed(lambda t=title: machine.slapos("request", t, RELEASE, "--wait")))
            bare.append(timed(lambda: empty_buildout(Path(folder))))
    ratio = statistics.median(a / b for a, b in zip(ours, bare, strict=True))
    show(
        [
            Figure("request to healthy, release not built", first),
            Figure(
                "request to healthy, release built",
                statistics.median(ours),
                beside="a buildout with nothing to do",
                beside_median=statistics.median(bare),
                ratio=ratio,
                runs=RUNS,
                notes={"all": [round(seconds, 2) for seconds in ours]},
            ),
        ]
    )


if __name__ == "__main__":
    main()
