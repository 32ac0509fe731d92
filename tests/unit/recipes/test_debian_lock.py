import pytest

from slapos.protocol.errors import InvalidConfiguration
from slapos.recipes.debian_packages.lock import Package, differences, read_lock, write_lock


def package(name: str = "jq", version: str = "1.6", sha256: str = "ab") -> Package:
    return Package(name, version, "amd64", sha256)


def test_what_is_written_is_read() -> None:
    text = write_lock("", "bookworm/amd64", [package("b"), package("a")])
    assert read_lock(text, "it", "bookworm/amd64") == [package("a"), package("b")]


def test_other_platforms_stay_as_they_are() -> None:
    text = write_lock("", "bookworm/amd64", [package()])
    text = write_lock(text, "noble/arm64", [package(version="1.7")])
    assert read_lock(text, "it", "bookworm/amd64") == [package()]
    assert read_lock(text, "it", "trixie/amd64") is None


@pytest.mark.parametrize("text", ["{", "[]", '{"bookworm/amd64": {"jq": {}}}'])
def test_what_is_no_lock_is_told(text: str) -> None:
    with pytest.raises(InvalidConfiguration, match="it is no lock file"):
        read_lock(text, "it", "bookworm/amd64")


def test_differences_are_told_one_by_one() -> None:
    locked = [package("a"), package("b"), package("c"), package("d")]
    found = [package("a", version="2"), package("b", sha256="cd"), package("d"), package("e")]
    assert differences(locked, found) == [
        "a 1.6 is locked, 2 is given",
        "b 1.6 is locked with sha256 ab, the archive has cd",
        "c 1.6 is locked and not given",
        "e 1.6 is needed and not locked",
    ]
