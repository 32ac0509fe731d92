"""`slapos:template.jinja2`."""

import json
from pathlib import Path
from typing import Any

import pytest

from slapos.protocol.errors import InvalidConfiguration
from slapos.recipes.buildout.engine import take_place
from slapos.recipes.template_jinja2 import Recipe
from tests.recipe_sections import FakeBuildout

take_place()


def make(directory: Path, **options: Any) -> Any:
    buildout = FakeBuildout(
        directory, s={"x": "value", "l": ["a", "b"], "j": '{"k": [1]}'}, empty={}
    )
    options.setdefault("output", str(directory / "out"))
    return buildout.make(Recipe, **options)


def render(directory: Path, **options: Any) -> str:
    (path,) = make(directory, **options).install()
    return Path(path).read_text()


def test_each_type_of_variable(tmp_path: Path) -> None:
    context = """
        raw r some text
        key k s:x
        key own :own
        key list s:l
        json j {"a": 1}
        jsonkey jk s:j
        import ospath os.path
        section s s
    """
    inline = "{{ [r, k, own, list, j, jk, ospath.basename('/a/b'), s['l']] | tojson }}"
    shown = json.loads(render(tmp_path, inline=inline, context=context, own="mine"))
    assert shown == [
        "some text",
        "value",
        "mine",
        ["a", "b"],
        {"a": 1},
        {"k": [1]},
        "b",
        ["a", "b"],
    ]


def test_builtins_assert_and_dumps(tmp_path: Path) -> None:
    inline = "{{ assert(len('ab') == 2, 'no') }}{{ dumps([1, '$${x:y}']) }} $${x:y} $$"
    assert render(tmp_path, inline=inline) == "!py![1, '\\x24{x:y}'] ${x:y} $$"


def test_files_and_folders_are_imported(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("{% macro m() %}one{% endmacro %}")
    (tmp_path / "many").mkdir()
    (tmp_path / "many" / "two").write_text("{% macro m() %}two{% endmacro %}")
    imports = f"file one :one\nrawfolder many {tmp_path}/many"
    inline = (
        '{% import "one" as a with context %}{% from "many/two" import m %}{{ a.m() }} {{ m() }}'
    )
    shown = render(tmp_path, inline=inline, import_list=imports, one=str(tmp_path / "one"))
    assert shown == "one two"


def test_what_is_right_already_is_left_alone(tmp_path: Path) -> None:
    recipe = make(tmp_path, inline="x")
    recipe.install()
    before = (tmp_path / "out").stat()
    recipe.update()
    after = (tmp_path / "out").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_once_it_is_there_it_is_kept(tmp_path: Path) -> None:
    once = str(tmp_path / "once")
    assert make(tmp_path, inline="first", once=once).install() == []
    assert make(tmp_path, inline="second", once=once).install() == []
    assert (tmp_path / "out").read_text() == "first"


def test_the_older_names_of_options(tmp_path: Path) -> None:
    recipe = FakeBuildout(tmp_path).make(
        Recipe, template="inline:\nx", rendered=str(tmp_path / "old")
    )
    recipe.install()
    assert (tmp_path / "old").read_text() == "x"


def url(directory: Path, text: str) -> str:
    path = directory / "in.cfg"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\n{{ undefined }}", r"in\.cfg, line 2: 'undefined' is undefined"),
        ("a\n{{ dumps(undefined) }}", r"in\.cfg, line 2: 'undefined' is undefined"),
        ("\n\n{% if %}", r"in\.cfg, line 3: "),
        ("{{ 1/0 }}", r"in\.cfg, line 1: ZeroDivisionError: division by zero"),
        ("{{ assert(False, 'so') }}", r"in\.cfg, line 1: AssertionError: so"),
        ('{% import "x" as y %}', r"nothing to import as 'x'"),
    ],
)
def test_what_is_wrong_in_a_template_is_told_with_its_line(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(InvalidConfiguration, match=message):
        render(tmp_path, url=url(tmp_path, text))


def test_an_error_in_an_imported_file_names_that(tmp_path: Path) -> None:
    (tmp_path / "macros").write_text("\n{% macro m() %}{{ nothing }}{% endmacro %}")
    with pytest.raises(InvalidConfiguration, match="macros, line 2: 'nothing' is undefined"):
        render(
            tmp_path,
            inline='{% from "f" import m %}{{ m() }}',
            import_list=f"rawfile f {tmp_path}/macros",
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context": "key x"}, "is not TYPE NAME EXPRESSION"),
        ({"context": "keys x a:b"}, "'keys' is no type of variable"),
        ({"context": "key x ab"}, "'ab' is no section:option"),
        ({"context": "raw x 1\nraw x 2"}, "the variable 'x' is there twice"),
        ({"context": "json x {"}, "context: json x {: Expecting"),
        ({"context": "import x no.such.module"}, "No module named"),
        ({"import_list": "fil x y"}, "'fil' is none of"),
    ],
)
def test_what_makes_no_sense_is_refused(
    tmp_path: Path, options: dict[str, str], message: str
) -> None:
    with pytest.raises(InvalidConfiguration, match=message):
        render(tmp_path, inline="x", **options)
