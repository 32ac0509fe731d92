"""`slapos:python`, with the real uv, on a wheel of our own on disk."""

import base64
import hashlib
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from slapos.system.runner import Result, SystemRunner, User
from tests.integration.recipes.running_buildout import build, nobody


def make_wheel(folder: Path, tag: str = "py3-none-any", version: str = "1.0") -> str:
    """Write a wheel of the package `greeter`, with a program of that name; return its hash."""
    info = f"greeter-{version}.dist-info"
    files = {
        "greeter.py": "def main():\n    print('good evening')\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: greeter\nVersion: {version}\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
        f"{info}/entry_points.txt": "[console_scripts]\ngreeter = greeter:main\n",
    }
    record = ""
    for name, content in files.items():
        digest = hashlib.sha256(content.encode()).digest()
        encoded = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        record += f"{name},sha256={encoded},{len(content)}\n"
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    path = folder / f"greeter-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def directory() -> Iterator[Path]:
    """Return a folder that other users can reach, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="slapos-python-") as folder:
        Path(folder).chmod(0o755)
        (Path(folder) / "wheels").mkdir()
        yield Path(folder)


def build_greeter(
    directory: Path, sha256: str, *options: str, user: User | None = None, pin: str = "==1.0"
) -> Result:
    locked = f"greeter{pin} --hash=sha256:{sha256}\n" if sha256 else f"greeter{pin}\n"
    (directory / "requirements.txt").write_text(locked)
    part = ["parts = py", "[py]", "recipe = slapos:python", "requirements = requirements.txt"]
    wheels = {"UV_FIND_LINKS": str(directory / "wheels"), "UV_NO_INDEX": "1"}
    return build(directory, "\n".join([*part, *options, ""]), user=user, variables=wheels)


def greet(program: Path) -> str:
    return SystemRunner().run([str(program)], cwd=Path("/"), environment={}).output


@pytest.mark.parametrize("ordinary_user", [False, True])
def test_locked_packages_are_installed_and_linked(directory: Path, ordinary_user: bool) -> None:
    user = nobody() if ordinary_user else None
    sha256 = make_wheel(directory / "wheels")
    built = build_greeter(directory, sha256, "scripts = greeter\n  hi = greeter", user=user)
    assert built.status == 0, built.output
    assert greet(directory / "bin/greeter") == greet(directory / "bin/hi") == "good evening"


def test_a_shared_environment_is_built_once_and_again_when_not_finished(directory: Path) -> None:
    sha256 = make_wheel(directory / "wheels")
    assert build_greeter(directory, sha256, "shared = true").status == 0
    (location,) = (directory / "shared/py").glob("[0-9a-f]*")
    marker = location / ".buildout-shared.json"
    built_at = marker.stat().st_mtime_ns
    assert build_greeter(directory, sha256, "shared = true").status == 0
    assert marker.stat().st_mtime_ns == built_at
    location.chmod(0o755)
    marker.unlink()
    shutil.rmtree(directory / "wheels")
    (directory / "wheels").mkdir()
    make_wheel(directory / "wheels")
    assert build_greeter(directory, sha256, "shared = true").status == 0
    assert greet(location / "bin/greeter") == "good evening"


def test_a_changed_lock_makes_another_environment(directory: Path) -> None:
    sha256 = make_wheel(directory / "wheels")
    assert build_greeter(directory, sha256).status == 0
    newer = make_wheel(directory / "wheels", version="2.0")
    assert build_greeter(directory, newer, pin="==2.0").status == 0
    assert list((directory / "parts/py").rglob("greeter-2.0.dist-info"))


@pytest.mark.parametrize(
    ("tag", "sha256", "pin", "told"),
    [
        ("py3-none-any", "0" * 64, "==1.0", "lock it again"),
        ("py3-none-any", "", "==1.0", "uv pip compile --universal --generate-hashes"),
        ("cp39-cp39-win32", None, "==1.0", "take a version that has a wheel for this Python"),
    ],
)
def test_what_cannot_be_installed_is_told(
    directory: Path, tag: str, sha256: str | None, pin: str, told: str
) -> None:
    real = make_wheel(directory / "wheels", tag)
    built = build_greeter(directory, real if sha256 is None else sha256, pin=pin)
    assert built.status != 0
    assert "greeter" in built.output
    assert told in built.output
    assert "Traceback" not in built.output


def test_no_network_is_told(directory: Path) -> None:
    (directory / "requirements.txt").write_text(f"greeter==1.0 --hash=sha256:{'0' * 64}\n")
    part = "parts = py\n[py]\nrecipe = slapos:python\nrequirements = requirements.txt\n"
    built = build(directory, part)
    assert "run once with the network" in built.output
    built = build(
        directory,
        part + "offline = false\n",
        variables={"UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple", "UV_HTTP_RETRIES": "0"},
    )
    assert built.status != 0
    assert "see the network and the proxy" in built.output


def test_an_environment_without_the_program_is_told(directory: Path) -> None:
    built = build_greeter(directory, make_wheel(directory / "wheels"), "scripts = farewell")
    assert "`scripts` names farewell" in built.output


def test_a_python_that_does_not_run_is_told(directory: Path) -> None:
    built = build_greeter(directory, "0" * 64, "python = /nowhere/python")
    assert "/nowhere/python is no Python that runs here" in built.output
