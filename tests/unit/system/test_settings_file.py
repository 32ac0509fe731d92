"""Options that are changed in a settings file: what stays, what is refused."""

from pathlib import Path

import pytest

from slapos.protocol.errors import InvalidConfiguration
from slapos.system.settings_file import with_options, write_options


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "[slapos]\na = 1\nb = 2\n"),
        ("[other]\na = x\n", "[other]\na = x\n\n[slapos]\na = 1\nb = 2\n"),
        ("[slapos]\n# why\na: x\n  y\nc = z\n", "[slapos]\n# why\na = 1\nc = z\nb = 2\n"),
        (
            "[slapos]\nc = z\n\n# of the next\n[next]\na = x\n",
            "[slapos]\nc = z\na = 1\nb = 2\n\n# of the next\n[next]\na = x\n",
        ),
        ("[slapos]\nB=x\n", "[slapos]\nB = 2\na = 1\n"),
        ("[slapos]\n#a = x\n", "[slapos]\na = 1\nb = 2\n#a = x\n"),
    ],
)
def test_what_is_named_is_changed_and_all_else_stays(before: str, after: str) -> None:
    assert with_options(before, "slapos", {"a": "1", "b": "2"}) == after
    assert with_options(after, "slapos", {"a": "1", "b": "2"}) == after


def test_a_dash_is_as_good_as_an_underscore(tmp_path: Path) -> None:
    path = tmp_path / "slapos.cfg"
    path.write_text("[slapos]\nkey-file = /old\n")
    write_options(path, "slapos", {"key_file": "/new"})
    assert path.read_text() == "[slapos]\nkey-file = /new\n"


@pytest.mark.parametrize("text", ["no section\n", "[slapos]\na = 1\na = 2\n", "[slapos\n"])
def test_a_file_that_makes_no_sense_is_left_as_it_is(tmp_path: Path, text: str) -> None:
    path = tmp_path / "slapos.cfg"
    path.write_text(text)
    with pytest.raises(InvalidConfiguration):
        write_options(path, "slapos", {"key_file": "/new"})
    assert path.read_text() == text


@pytest.mark.parametrize("value", ["two\nlines", " space", "a\n[other]"])
def test_a_value_that_would_be_read_otherwise_is_refused(tmp_path: Path, value: str) -> None:
    path = tmp_path / "slapos.cfg"
    with pytest.raises(InvalidConfiguration, match=r"cannot be (written|changed)"):
        write_options(path, "slapos", {"key_file": value})
    assert not path.exists()


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real.cfg", tmp_path / "slapos.cfg"
    real.write_text("[slapos]\n")
    link.symlink_to(real)
    write_options(link, "slapos", {"a": "1"})
    assert link.is_symlink()
    assert real.read_text() == "[slapos]\na = 1\n"
