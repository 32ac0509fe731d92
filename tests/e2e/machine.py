"""A standalone SlapOS of a test's own, as root or as an ordinary user."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parents[2]
SLAPOS = Path(sys.executable).with_name("slapos")
NOBODY = 65534


@dataclass
class Machine:
    """One directory with a master, a node and supervisord; `as_root` says who runs them."""

    directory: Path
    as_root: bool
    environment: dict[str, str] = field(default_factory=dict)

    @classmethod
    def make(cls, *, as_root: bool) -> "Machine":
        """Make the directory, short enough for the sockets in it and open to other users."""
        directory = Path(tempfile.mkdtemp(prefix="slapos-e2e-", dir="/tmp"))
        directory.chmod(0o755)
        if os.geteuid() == 0 and not as_root:
            os.chown(directory, NOBODY, NOBODY)
        environment = {name: value for name, value in os.environ.items() if name != "HOME"}
        environment["HOME"] = str(directory)
        environment["SLAPOS_CLIENT_CONFIGURATION"] = str(directory / "etc" / "slapos.cfg")
        environment["SLAPOS_CONFIGURATION"] = environment["SLAPOS_CLIENT_CONFIGURATION"]
        return cls(directory, as_root, environment)

    def run(self, *argv: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run a program as the machine's operator."""
        become = os.geteuid() == 0 and not self.as_root
        return subprocess.run(
            argv,
            cwd=self.directory,
            env=self.environment,
            user=NOBODY if become else None,
            group=NOBODY if become else None,
            extra_groups=[] if become else None,
            stdin=subprocess.DEVNULL,
            text=True,
            capture_output=True,
            timeout=timeout,
            check=False,
        )

    def try_slapos(self, *words: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run `slapos …` and return whatever came of it."""
        return self.run(str(SLAPOS), *words, timeout=timeout)

    def slapos(self, *words: str, timeout: float = 300) -> str:
        """Run `slapos …`, which has to succeed, and return its stdout."""
        done = self.try_slapos(*words, timeout=timeout)
        assert done.returncode == 0, f"slapos {' '.join(words)}: {done.returncode}\n{done.stderr}"
        return done.stdout

    def json(self, *words: str, timeout: float = 300) -> Any:
        """Run `slapos … --json` and return what it says."""
        return json.loads(self.slapos(*words, "--json", timeout=timeout))

    def start(self) -> None:
        """Start the standalone, which may run already."""
        self.slapos("standalone", "start", "--directory", str(self.directory))

    def stop(self) -> None:
        """Stop all that the standalone runs."""
        self.slapos("standalone", "stop", "--directory", str(self.directory))

    def remove(self) -> None:
        """Remove everything, and the users that were made for it."""
        self.try_slapos("standalone", "remove", "--yes", "--directory", str(self.directory))
        shutil.rmtree(self.directory, ignore_errors=True)

    def logs(self) -> str:
        """Return the ends of the log files, for the report of a failed test."""
        found = sorted((self.directory / "var" / "log").glob("*.log"))
        return "\n".join(f"== {path}\n{path.read_text()[-4000:]}" for path in found)
