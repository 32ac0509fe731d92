"""The peer: slapos.core from PyPI, locked, in a virtual environment of its own."""

import fcntl
import hashlib
import subprocess
import sys
from pathlib import Path
from shutil import which

ROOT = Path(__file__).parents[2]
ASK = "import sys; print(sys.version_info >= (3, 12), sys.executable)"
LOCK = ROOT / "requirements" / "conformance.txt"


def peer_environment(python: Path | None = None) -> Path:
    """Return the folder `bin` of the peer's environment, made at the first call.

    It is `.cache/conformance-<hash of what is locked>`: once made, nothing is fetched.
    `python` is the interpreter to make it with, by default that of this checkout.
    """
    python = (python or Path(sys.executable)).resolve()
    wanted = hashlib.sha256(LOCK.read_bytes() + str(python).encode()).hexdigest()
    directory = ROOT / ".cache" / f"conformance-{wanted[:16]}"
    directory.parent.mkdir(exist_ok=True)
    with (directory.parent / "conformance.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ready = directory / ".ready"
        if not ready.exists():
            _make(directory, python)
            ready.touch()
    return directory / "bin"


def _make(directory: Path, python: Path) -> None:
    uv = str(Path(sys.executable).with_name("uv"))
    steps = (
        [uv, "venv", "-q", "--clear", "--offline", "--python", str(python), str(directory)],
        [
            *(uv, "pip", "sync", "-q", "--compile-bytecode", "--system-certs"),
            "--require-hashes",
            *("--build-constraints", str(LOCK)),
            *("--python", str(directory / "bin" / "python"), str(LOCK)),
        ],
    )
    for step in steps:
        result = subprocess.run(
            step, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        if result.returncode:
            raise RuntimeError(f"{' '.join(step)} failed:\n{result.stdout}")


def newer_python() -> Path | None:
    """Return a Python that the peer's node works with (3.12 or newer), None when there is none."""
    found = [Path(name) for name in ("python3.14", "python3.13", "python3.12") if which(name)]
    if which("pyenv"):
        versions = _printed("pyenv", "versions", "--bare").split()
        found += [
            Path(_printed("pyenv", "prefix", version), "bin", "python")
            for version in versions
            if version.startswith("3.") and version.split(".")[1] in ("12", "13", "14")
        ]
    for python in (Path(sys.executable), *found):
        told = _printed(
            str(python), "-c", "import sys; print(sys.version_info >= (3, 12), sys.executable)"
        )
        right, _, path = told.partition(" ")
        if right == "True":
            return Path(path)
    return None


def _printed(*command: str) -> str:
    return subprocess.run(command, check=False, text=True, capture_output=True).stdout.strip()
