"""Running the real buildout in a process of its own, as a node does."""

import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from slapos.system.runner import Result, SystemRunner

START = "import sys; from slapos.recipes.buildout.main import main; sys.exit(main(sys.argv[1:]))"


def profile(directory: Path, text: str, name: str = "buildout.cfg") -> Path:
    """Write a profile; without a section at its beginning, it is of [buildout]."""
    path = directory / name
    text = text.strip()
    path.write_text((text if text.startswith("[") else f"[buildout]\n{text}") + "\n")
    return path


def run(directory: Path, *arguments: str, check: bool = True) -> Result:
    """Run buildout in a directory; with `check` it has to succeed."""
    result = SystemRunner().run(
        [sys.executable, "-c", START, "-U", *arguments],
        cwd=directory,
        environment={"HOME": str(directory), "PATH": "/usr/bin:/bin", "PYTHONWARNINGS": "error"},
        timeout=60,
        check=False,
    )
    assert not check or result.status == 0, result.output
    return result


def failure(directory: Path, *arguments: str) -> str:
    """Run a buildout that has to fail with a message, not with a traceback, and return that."""
    result = run(directory, *arguments, check=False)
    assert result.status == 1, result.output
    assert "Traceback" not in result.output, result.output
    assert "Error: " in result.output
    return result.output.partition("Error: ")[2]


def distribution(
    directory: Path, name: str, modules: dict[str, str], entry_points: str = "", version: str = "1"
) -> Path:
    """Make a wheel of one package and return it."""
    wheel = directory / f"{name}-{version}-py3-none-any.whl"
    information = f"{name}-{version}.dist-info"
    files = {
        f"{name}/__init__.py": "",
        **{f"{name}/{path}": text for path, text in modules.items()},
    }
    files[f"{information}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files[f"{information}/WHEEL"] = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{information}/entry_points.txt"] = entry_points
    record = "".join(f"{path},,\n" for path in files)
    files[f"{information}/RECORD"] = record + f"{information}/RECORD,,\n"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return wheel


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_arguments: Any) -> None:
        return

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        super().do_GET()


@contextmanager
def served(directory: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve a directory over HTTP; gives its URL, and the paths that were asked for so far."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(directory)))
    asked: list[str] = []
    server.asked = asked  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
