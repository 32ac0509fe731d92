"""The peer: slapos.core from PyPI, locked, in a virtual environment of its own."""

import fcntl
import hashlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements" / "conformance.txt"


def peer_environment() -> Path:
    """Return the folder `bin` of the peer's environment, made at the first call.

    It is `.cache/conformance-<hash of what is locked>`: once made, nothing is fetched.
    """
    python = Path(sys.executable).resolve()
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
            *(uv, "pip", "sync", "-q", "--system-certs", "--require-hashes"),
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
