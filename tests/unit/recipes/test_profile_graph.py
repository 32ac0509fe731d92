"""The profiles of an `extends` graph are read once, and mean what they mean to upstream."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zc.buildout.buildout as upstream
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zc.buildout import UserError

from slapos.recipes.buildout import profiles
from slapos.recipes.buildout.profiles import ProfileReader, base_of, resolved

UPSTREAM_OPEN = upstream._open
#: section → option (with its operator) → value
Content = dict[str, dict[str, str]]


def write(directory: Path, name: str, extends: list[str], content: Content | str = "") -> None:
    lines = ["[buildout]", *(["extends = " + "\n  ".join(extends)] if extends else [])]
    if isinstance(content, str):
        lines.append(content)
    else:
        for section, options in content.items():
            lines.append(f"[{section}]")
            lines += [f"{option} {value}" for option, value in options.items()]
    (directory / name).write_text("\n".join(lines) + "\n")


def read(
    directory: Path, name: str = "root.cfg", open_: Callable[..., Any] | None = None
) -> Content:
    options = upstream.copy.deepcopy(upstream._buildout_default_options)
    opened, _ = (open_ or ProfileReader())(str(directory), name, [], options, {}, set(), {})
    result: Content = upstream._unannotate(opened)
    return result


class CountedReader(ProfileReader):
    """Remembers the profiles that it reads."""

    def __init__(self) -> None:
        super().__init__(self.counted)
        self.reads: list[str] = []

    def counted(self, name: str, *rest: Any) -> str:
        self.reads.append(name)
        return profiles._content(name, *rest)


def test_each_profile_of_a_graph_of_diamonds_is_read_once(tmp_path: Path) -> None:
    """Two profiles a level, each extending both of the level below: 2^150 ways through."""
    levels = 150
    for level in range(levels):
        below = [f"{level - 1}-{side}.cfg" for side in "ab"] if level else []
        for side in "ab":
            content = {"common": {f"o{level} =": side}, f"s{level}": {"x =": side}}
            write(tmp_path, f"{level}-{side}.cfg", below, content)
    write(tmp_path, "root.cfg", [f"{levels - 1}-{side}.cfg" for side in "ab"])
    reader = CountedReader()
    result = read(tmp_path, open_=reader)
    assert len(reader.reads) == len(set(reader.reads)) == 2 * levels + 1
    assert len(result["common"]) == levels


def test_a_long_chain_is_read(tmp_path: Path) -> None:
    for number in range(1100):
        write(tmp_path, f"{number}.cfg", [f"{number + 1}.cfg"])
    write(tmp_path, "1100.cfg", [], {"s": {"x =": "deep"}})
    assert read(tmp_path, "0.cfg")["s"]["x"] == "deep"


names = st.sampled_from(["x", "y"])
operators = st.sampled_from([" =", " +=", " -="])
option = st.tuples(names, operators).map("".join)
content = st.dictionaries(
    st.sampled_from(["s", "t", "u"]),
    st.dictionaries(option, st.sampled_from(["1", "2", "3"]), max_size=3)
    | st.dictionaries(option | st.just("< ="), st.sampled_from(["s", "t"]), max_size=3),
    max_size=3,
)
slow = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))


@slow
@given(contents=st.lists(content, min_size=4, max_size=6), random=st.randoms())
def test_a_tree_of_profiles_gives_what_it_gives_upstream(
    contents: list[Content], random: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("tree")
    children: dict[int, list[int]] = {number: [] for number in range(len(contents))}
    for number in range(1, len(contents)):
        children[random.randrange(number)].append(number)
    for number, item in enumerate(contents):
        write(directory, f"{number}.cfg", [f"{child}.cfg" for child in children[number]], item)
    assert read(directory, "0.cfg") == read(directory, "0.cfg", UPSTREAM_OPEN)


def only_assignments(item: Content) -> Content:
    return {
        section: {option.split()[0] + " =": value for option, value in options.items()}
        for section, options in item.items()
    }


@slow
@given(contents=st.lists(content.map(only_assignments), min_size=4, max_size=7), data=st.data())
def test_a_graph_of_profiles_gives_what_it_gives_upstream(
    contents: list[Content], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("graph")
    last = len(contents) - 1
    for number, item in enumerate(contents):
        later = (
            st.lists(st.integers(number + 1, last), max_size=3) if number < last else st.just([])
        )
        write(directory, f"{number}.cfg", [f"{child}.cfg" for child in data.draw(later)], item)
    assert read(directory, "0.cfg") == read(directory, "0.cfg", UPSTREAM_OPEN)


def test_adding_in_a_shared_profile_adds_once(tmp_path: Path) -> None:
    write(tmp_path, "shared.cfg", [], {"s": {"x +=": "shared"}})
    write(tmp_path, "a.cfg", ["shared.cfg"], {"s": {"x +=": "a"}})
    write(tmp_path, "b.cfg", ["shared.cfg"], {"s": {"x +=": "b"}})
    write(tmp_path, "root.cfg", ["a.cfg", "b.cfg"])
    assert sorted(read(tmp_path)["s"]["x"].split()) == ["a", "b", "shared"]


def test_profiles_that_extend_each_other_are_named(tmp_path: Path) -> None:
    write(tmp_path, "root.cfg", ["a.cfg"])
    write(tmp_path, "a.cfg", ["sub/../b.cfg"])
    write(tmp_path, "b.cfg", ["a.cfg"])
    with pytest.raises(UserError) as caught:
        read(tmp_path)
    a, b = tmp_path / "a.cfg", tmp_path / "b.cfg"
    assert f"{a} extends\n  {b} extends\n  {a}" in str(caught.value)
    assert "root.cfg" not in str(caught.value)


def test_a_missing_profile_is_named_with_the_one_that_extends_it(tmp_path: Path) -> None:
    write(tmp_path, "root.cfg", ["gone.cfg"])
    with pytest.raises(UserError, match=r"gone\.cfg, which .*/root\.cfg extends: No such file"):
        read(tmp_path)


def test_an_optional_profile_may_be_missing(tmp_path: Path) -> None:
    write(tmp_path, "there.cfg", [], {"s": {"x =": "1"}})
    write(tmp_path, "root.cfg", [], "optional-extends = gone.cfg there.cfg")
    assert read(tmp_path)["s"] == {"x": "1"}


def test_a_condition_decides_about_a_section(tmp_path: Path) -> None:
    write(tmp_path, "more.cfg", [], {"s": {"x =": "1"}})
    content = "[buildout:python3]\nextends += more.cfg\n[buildout:python2]\nextends += gone.cfg"
    write(tmp_path, "root.cfg", [], content)
    assert read(tmp_path)["s"] == {"x": "1"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[s]\nx = 1\nnonsense\n", "line 3: 'nonsense"),
        ("x = 1\n", "line 1: 'x = 1' stands before any [section]"),
        ("[s:1/0]\nx = 1\n", "the condition of a section fails: ZeroDivisionError"),
        ("[s]\nx = \udcff\n", "is no UTF-8 text"),
    ],
)
def test_a_profile_that_cannot_be_read_is_named(tmp_path: Path, text: str, message: str) -> None:
    profile = tmp_path / "bad.cfg"
    profile.write_bytes(text.encode("utf-8", "surrogateescape"))
    write(tmp_path, "root.cfg", ["bad.cfg"])
    with pytest.raises(UserError) as caught:
        read(tmp_path)
    assert str(profile) in str(caught.value)
    assert message in str(caught.value)


def test_a_section_stands_in_the_last_profile_that_has_it(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    write(tmp_path / "sub", "a.cfg", [], {"only": {"x =": "1"}, "both": {"x =": "1"}})
    write(tmp_path, "root.cfg", ["sub/a.cfg"], {"both": {"y =": "2"}})
    reader = ProfileReader()
    read(tmp_path, open_=reader)
    assert base_of(reader.places["only"]) == str(tmp_path / "sub")
    assert base_of(reader.places["both"]) == str(tmp_path)


@pytest.mark.parametrize(
    ("base", "name", "expected"),
    [
        ("/a/b", "c.cfg", "/a/b/c.cfg"),
        ("/a/b", "../c.cfg", "/a/c.cfg"),
        ("/a/b", "/c.cfg", "/c.cfg"),
        ("/a/b", "http://h/x/../c.cfg", "http://h/c.cfg"),
        ("http://h/a/b", "../c.cfg", "http://h/a/c.cfg"),
        ("http://h/a", "/c.cfg", "/c.cfg"),
        ("http://h/a", "c.cfg?x=/y", "http://h/a/c.cfg?x=/y"),
    ],
)
def test_where_a_profile_is(base: str, name: str, expected: str) -> None:
    assert resolved(base, name) == expected


def test_the_base_of_a_url_is_without_its_last_part() -> None:
    assert base_of("http://h/a/b.cfg?x=/y") == "http://h/a"
