import os
from pathlib import Path

import pytest

from slapos.recipes.part import (
    Part,
    PartFailed,
    Sections,
    cache_directory,
    choose_part,
    explained,
    words,
)
from slapos.system.files import remove_tree


def sections(tmp_path: Path, shared: str = "", **more: str) -> Sections:
    own = {
        "directory": str(tmp_path / "release"),
        "parts-directory": str(tmp_path / "release/parts"),
        "shared-part-list": shared,
    }
    return {"buildout": {**own, **more}}


class Killed(BaseException):
    """What a kill looks like from inside."""


def test_a_part_is_filled_once(tmp_path: Path) -> None:
    filled: list[Path] = []
    part = Part(tmp_path / "it", {"of": "x"})
    assert part.build(filled.append) == part.build(filled.append) == [str(tmp_path / "it")]
    assert filled == [tmp_path / "it"]


def test_a_part_of_another_signature_is_made_anew(tmp_path: Path) -> None:
    Part(tmp_path / "it", {"of": "x"}).build(lambda path: path.joinpath("old").touch())
    Part(tmp_path / "it", {"of": "y"}).build(lambda path: path.joinpath("new").touch())
    assert not (tmp_path / "it/old").exists()
    assert (tmp_path / "it/new").exists()


def test_what_was_killed_half_way_is_done_again(tmp_path: Path) -> None:
    def killed(path: Path) -> None:
        (path / "half").touch()
        raise Killed

    part = Part(tmp_path / "it", {}, shared=True)
    with pytest.raises(Killed):
        part.build(killed)
    assert not part.complete
    assert part.build(lambda path: None) == [], "shared: nothing that buildout may remove"
    assert not (tmp_path / "it/half").exists()


def test_a_shared_part_is_read_only_and_can_be_removed(tmp_path: Path) -> None:
    def fill(path: Path) -> None:
        (path / "bin").mkdir()
        (path / "bin/tool").write_text("x")
        (path / "bin/tool").chmod(0o755)
        (path / "gone").symlink_to("/nowhere")

    Part(tmp_path / "it", {}, shared=True).build(fill)
    modes = [os.stat(tmp_path / "it" / name).st_mode & 0o777 for name in ("", "bin", "bin/tool")]
    assert modes == [0o555, 0o555, 0o555]
    remove_tree(tmp_path / "it")
    assert not (tmp_path / "it").exists()


def test_a_shared_part_is_found_wherever_it_is_and_made_in_the_last_place(tmp_path: Path) -> None:
    first, last = tmp_path / "first", tmp_path / "last"
    buildout = sections(tmp_path, shared=f"{first}\n{last}")
    options = {"shared": "true"}
    fresh = choose_part(buildout, "it", options, {"of": "x"})
    assert fresh.location.parent == last / "it"
    Part(first / "it" / fresh.location.name, {"of": "x"}, shared=True).build(lambda path: None)
    assert choose_part(buildout, "it", options, {"of": "x"}).location.parent == first / "it"


def test_without_a_place_to_share_a_part_is_its_own(tmp_path: Path) -> None:
    part = choose_part(sections(tmp_path), "it", {"shared": "true"}, {})
    assert part.location == tmp_path / "release/parts/it"
    assert not part.shared


def test_downloads_are_kept_where_one_says_or_near(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    plain = sections(tmp_path)
    assert cache_directory(plain, {"cache-directory": "/c"}, "x") == Path("/c/x")
    assert cache_directory(sections(tmp_path, **{"download-cache": "/d"}), {}, "x") == Path("/d/x")
    assert cache_directory(sections(tmp_path, shared=str(shared)), {}, "x") == shared / ".cache/x"
    assert cache_directory(plain, {}, "x") == tmp_path / "release/.cache/x"


def test_an_error_names_the_part(tmp_path: Path) -> None:
    with pytest.raises(PartFailed, match=r"^jq: .*/gone: No such file"), explained("jq"):
        (tmp_path / "gone").read_text()


def test_comment_lines_are_no_words() -> None:
    assert words("a b\n# c\n  d") == ["a", "b", "d"]
