import os
from pathlib import Path

import pytest

from slapos.node.build.local_profile import profile_digest

HERE = "${:_profile_base_location_}"


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    for name in ("page.html.in", "other.txt", "base.cfg"):
        (tmp_path / name).write_text(name)
    return tmp_path / "software.cfg"


def changes(profile: Path, name: str) -> bool:
    """Whether the digest changes when a file beside the profile does."""
    before = profile_digest(str(profile))
    (profile.parent / name).write_text("changed")
    return profile_digest(f"file://{profile}") != before


def test_a_file_that_is_named_counts_and_another_does_not(profile: Path) -> None:
    profile.write_text(f"[a]\nurl = {HERE}/page.html.in\n")
    assert changes(profile, "page.html.in")
    assert not changes(profile, "other.txt")


@pytest.mark.parametrize(
    "use",
    [
        f"url = {HERE}/${{:_buildout_section_name_}}",
        f"url = {HERE}/page.${{:kind}}",
        f"here = {HERE}",
        "context = key here :_profile_base_location_",
    ],
)
def test_where_a_name_is_made_up_of_options_every_file_beside_counts(
    profile: Path, use: str
) -> None:
    profile.write_text(f"[a]\n{use}\n")
    assert changes(profile, "page.html.in")
    assert changes(profile, "other.txt")


def test_a_circle_and_a_long_chain_of_profiles_have_an_end(profile: Path) -> None:
    profile.write_text("[buildout]\nextends = base.cfg\n")
    (profile.parent / "base.cfg").write_text("[buildout]\nextends = software.cfg 0.cfg\n")
    for number in range(1500):
        path = profile.parent / f"{number}.cfg"
        path.write_text(f"[buildout]\nextends = {number + 1}.cfg\n")
    assert profile_digest(str(profile))


def test_what_is_no_plain_file_is_not_read(profile: Path) -> None:
    os.mkfifo(profile)
    assert profile_digest(str(profile))
    assert profile_digest("/dev/zero")
    assert profile_digest("/no/such\0file")


def test_a_release_from_elsewhere_has_none() -> None:
    assert profile_digest("https://example.com/software.cfg") == ""
