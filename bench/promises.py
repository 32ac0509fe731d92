"""What a promise costs: 100 trivial plugins through the launcher, beside 100 bare `true`."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.measure import in_turn, show
from slapos.node.promise.check import ProcessPromiseChecker, PromiseContext
from slapos.system.runner import SystemRunner

COUNT = 100
PLUGIN = """\
import sys
sys.path[0:0] = []
extra_config_dict = {"number": 1}
from slapos.node.promise.generic import GenericPromise


class RunPromise(GenericPromise):
    def sense(self):
        self.logger.info("all is well")
"""
TRUE = shutil.which("true") or "/bin/true"


def bare() -> None:
    """Start `true` COUNT times, four at a time, as the launcher does with promises."""
    running: list[subprocess.Popen[bytes]] = []
    for _ in range(COUNT):
        if len(running) == 4:
            running.pop(0).wait()
        running.append(subprocess.Popen([TRUE]))
    for process in running:
        process.wait()


def main() -> None:
    checker = ProcessPromiseChecker(SystemRunner(), {"PATH": os.environ["PATH"]})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "etc" / "plugin"
        folder.mkdir(parents=True)
        for number in range(COUNT):
            (folder / f"promise{number}.py").write_text(PLUGIN)
        context = PromiseContext(
            partition_directory=Path(name),
            partition="slappart0",
            node="node",
            master_url="http://127.0.0.1:1",
            python=sys.executable,
            user=None,
        )

        def check(*, force: bool) -> None:
            results = checker.check(context, mode="test", force=force)
            if len(results) != COUNT or any(result.failed for result in results):
                raise RuntimeError("the promises do not hold, so their time means nothing")

        figures = [
            in_turn(
                f"{COUNT} promises",
                lambda: check(force=True),
                f"{COUNT} x fork+exec true",
                bare,
            ),
            in_turn(
                f"{COUNT} promises of which none is due",
                lambda: check(force=False),
                "python -c pass",
                lambda: subprocess.run([sys.executable, "-c", "pass"], check=True),
            ),
        ]
    for figure in figures:
        figure.notes["promises_per_second"] = round(COUNT / figure.median)
    show(figures)


if __name__ == "__main__":
    main()
