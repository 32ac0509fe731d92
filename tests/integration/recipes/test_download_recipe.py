"""`slapos:download`, from a path and from a web server of our own."""

import functools
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.recipes.running_buildout import build

CONTENT = b"a file to fetch\n"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """Return the address of a file on a web server."""
    folder = tmp_path / "www"
    folder.mkdir()
    (folder / "file.txt").write_bytes(CONTENT)
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/file.txt"
        server.shutdown()
        thread.join()


def part(*options: str) -> str:
    return "\n".join(["parts = file", "[file]", "recipe = slapos:download", *options, ""])


def test_a_file_is_fetched_once_and_checked(tmp_path: Path, url: str) -> None:
    text = part(f"url = {url}", f"sha256 = {SHA256}", "filename = it", "mode = 0755")
    built = build(tmp_path, text + "offline = false\n")
    assert built.status == 0, built.output
    target = tmp_path / "parts/file/it"
    assert target.read_bytes() == CONTENT
    assert target.stat().st_mode & 0o777 == 0o755
    target.unlink()
    (tmp_path / "www/file.txt").unlink()
    built = build(tmp_path, text)
    assert built.status == 0, built.output
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["sha256 = " + "0" * 64], f"has sha256 {SHA256}, and {'0' * 64} is expected"),
        (["md5sum = " + "0" * 32], "and " + "0" * 32 + " is expected"),
        (["sha256 = 12"], "it has 64 hexadecimal digits"),
        ([], "give its sha256 or md5sum"),
        (["sha256 = " + SHA256, "mode = rwx"], "write it in octal"),
        (["sha256 = " + SHA256, "offline = true"], "was not downloaded before"),
    ],
)
def test_what_cannot_be_is_told(tmp_path: Path, url: str, options: list[str], told: str) -> None:
    offline = [] if any("offline" in option for option in options) else ["offline = false"]
    built = build(tmp_path, part(f"url = {url}", *options, *offline))
    assert built.status != 0
    assert told in built.output
    assert "Traceback" not in built.output
    assert not (tmp_path / "parts/file").exists()


@pytest.mark.parametrize("gone", ["http://127.0.0.1:9/x", "{url}.missing"])
def test_an_address_that_does_not_answer_is_told(tmp_path: Path, url: str, gone: str) -> None:
    address = gone.format(url=url)
    built = build(tmp_path, part(f"url = {address}", f"sha256 = {SHA256}", "offline = false"))
    assert built.status != 0
    assert f"file: {address} cannot be downloaded" in built.output


def test_a_local_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "source").write_text("one")
    text = part("url = source", "destination = etc/copy")
    assert build(tmp_path, text).status == 0
    (tmp_path / "source").write_text("two")
    assert build(tmp_path, text).status == 0
    assert (tmp_path / "etc/copy").read_text() == "two"


def test_a_download_that_the_disk_lost_is_fetched_again(tmp_path: Path, url: str) -> None:
    text = part(f"url = {url}", f"sha256 = {SHA256}", "offline = false")
    assert build(tmp_path, text).status == 0
    [kept] = tmp_path.rglob("sha256-*")
    kept.write_bytes(b"")
    (tmp_path / "parts/file/file").unlink()
    built = build(tmp_path, text)
    assert built.status == 0, built.output
    assert (tmp_path / "parts/file/file").read_bytes() == CONTENT
