"""`mkdirectory`, `template`, `generate.password`, `promise.plugin`."""

import ast
import os
import stat
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from zc.buildout import UserError
from zc.buildout.download import ChecksumError

from slapos.protocol.errors import Conflict, InvalidConfiguration
from slapos.recipes import generate_password, mkdirectory, promise_plugin, template
from slapos.recipes.buildout.engine import take_place
from tests.recipe_sections import FakeBuildout

take_place()


def mode(path: Path | str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


class TestMkdirectory:
    def test_it_makes_each_option_a_directory(self, tmp_path: Path) -> None:
        buildout = FakeBuildout(tmp_path, base={"etc": f"{tmp_path}/etc"})
        recipe = buildout.make(
            mkdirectory.Recipe, recipe="x", mode="0700", a="${base:etc}/a/b", b=f"{tmp_path}/b"
        )
        assert recipe.install() == recipe.update() == []
        assert mode(tmp_path / "etc" / "a" / "b") == mode(tmp_path / "b") == 0o700

    def test_a_file_in_the_way_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "f").touch()
        recipe = FakeBuildout(tmp_path).make(mkdirectory.Recipe, a=f"{tmp_path}/f/b")
        with pytest.raises(Conflict, match="is a file"):
            recipe.install()


class TestTemplate:
    def render(self, directory: Path, **options: Any) -> Path:
        buildout = FakeBuildout(directory, s={"x": "value", "n": 80, "l": ["a"]})
        recipe = buildout.make(template.Recipe, output=str(directory / "out"), **options)
        (path,) = recipe.install()
        return Path(path)

    def test_references_are_replaced_and_doubled_dollars_are_one(self, tmp_path: Path) -> None:
        source = tmp_path / "in"
        source.write_text("${s:x} $${s:x} $$HOME $HOME ${s:n}\n${s:l}\n")
        out = self.render(tmp_path, url=str(source))
        assert out.read_text() == "value ${s:x} $HOME $HOME 80\n!py!['a']\n"

    def test_inline(self, tmp_path: Path) -> None:
        out = self.render(tmp_path, inline="a ${s:x} $${s:x}")
        assert out.read_text() == "a value ${s:x}"

    def test_a_script_is_executable(self, tmp_path: Path) -> None:
        assert mode(self.render(tmp_path, inline="#!/bin/sh\n")) & 0o100
        assert not mode(self.render(tmp_path, inline="#!/no/such\n")) & 0o100

    def test_mode(self, tmp_path: Path) -> None:
        assert mode(self.render(tmp_path, inline="x", mode="0640")) == 0o640

    def test_what_is_right_already_is_left_alone(self, tmp_path: Path) -> None:
        before = self.render(tmp_path, inline="x").stat()
        after = self.render(tmp_path, inline="x").stat()
        assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)

    def test_a_wrong_hash_is_told_with_the_right_one(self, tmp_path: Path) -> None:
        source = tmp_path / "in"
        source.write_text("x")
        with pytest.raises(ChecksumError) as caught:
            self.render(tmp_path, url=str(source), md5sum="0" * 32)
        assert f"{source} has not the wanted content" in str(caught.value)
        assert f"should be {'0' * 32} and is 9dd4e461268c8034f5c8564e155c67a6" in str(caught.value)
        assert source.exists()

    def test_a_missing_option_is_named(self, tmp_path: Path) -> None:
        source = tmp_path / "in"
        source.write_text("${s:y}")
        with pytest.raises(UserError, match=r"\$\{s:y\} in \[part\]: the section \[s\] has no"):
            self.render(tmp_path, url=str(source))

    def test_one_source_is_needed(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidConfiguration, match="one of the options inline and url"):
            self.render(tmp_path)


class Counted:
    def token(self, length: int) -> str:
        return "x" * length

    def fraction(self) -> float:
        return 0.5


class TestPassword:
    def make(self, directory: Path, **options: Any) -> tuple[Any, Any]:
        buildout = FakeBuildout(directory)
        recipe = buildout.make(partial(generate_password.Recipe, identifiers=Counted()), **options)
        recipe.install()
        return buildout["part"], recipe

    def test_it_is_kept_for_its_owner_alone_and_stays(self, tmp_path: Path) -> None:
        options, recipe = self.make(tmp_path, bytes="5")
        assert options["passwd"] == "xxxxx"
        assert mode(tmp_path / "parts" / "part") == 0o600
        assert recipe.install() == []
        assert self.make(tmp_path, bytes="9")[0]["passwd"] == "xxxxx"

    def test_it_is_not_remembered_by_buildout(self, tmp_path: Path) -> None:
        assert "passwd" not in self.make(tmp_path)[0].copy()

    def test_what_the_master_knows_wins(self, tmp_path: Path) -> None:
        self.make(tmp_path)
        options, _ = self.make(tmp_path, passwd="known")
        assert options["passwd"] == "known"
        assert (tmp_path / "parts" / "part").read_text() == "known"

    def test_it_need_not_be_kept(self, tmp_path: Path) -> None:
        options, _ = self.make(tmp_path, storage_path="")
        assert options["passwd"] == "x" * 16
        assert not (tmp_path / "parts").exists()

    def test_a_file_of_the_cookbook_is_understood(self, tmp_path: Path) -> None:
        path = tmp_path / "pw"
        path.write_text('{"": "old", "passwd-sha256-crypt": "…"}')
        assert self.make(tmp_path, storage_path=str(path))[0]["passwd"] == "old"


class TestPromisePlugin:
    def plugin(self, directory: Path, **options: Any) -> str:
        options.setdefault("output", str(directory / "etc" / "plugin" / "http.py"))
        (path,) = FakeBuildout(directory).make(promise_plugin.Recipe, **options).install()
        return Path(path).read_text()

    def test_it_tells_the_promise_what_it_needs(self, tmp_path: Path) -> None:
        text = self.plugin(
            tmp_path, promise="check_socket_listening", config_host="::1", config_port=80
        )
        body = ast.parse(text).body
        assert ast.unparse(body[1]) == "sys.path[0:0] = []"
        assert ast.unparse(body[2]) == "extra_config_dict = {'host': '::1', 'port': 80}"
        assert (
            ast.unparse(body[3])
            == "from slapos.node.promise.plugin.check_socket_listening import RunPromise"
        )

    def test_a_file_has_the_class(self, tmp_path: Path) -> None:
        source = tmp_path / "own.py"
        source.write_text("class Mine:\n    value = 3\n")
        text = self.plugin(tmp_path, file=str(source), **{"class": "Mine"})
        names: dict[str, Any] = {}
        exec(text, names)
        assert names["RunPromise"].value == 3

    def test_another_class_of_a_module(self, tmp_path: Path) -> None:
        text = self.plugin(tmp_path, module="a.b", **{"class": "Mine"})
        assert text.endswith("from a.b import Mine as RunPromise\n")

    @pytest.mark.parametrize(
        "options",
        [{}, {"module": "a b"}, {"module": "a", "file": "/x"}, {"promise": "x", "output": "/x"}],
    )
    def test_what_makes_no_sense_is_refused(self, tmp_path: Path, options: dict[str, str]) -> None:
        with pytest.raises(InvalidConfiguration):
            self.plugin(tmp_path, **options)

    def test_its_name_shadows_nothing_when_it_is_run_by_its_path(self, tmp_path: Path) -> None:
        self.plugin(tmp_path, module="http.client")
        code = (
            "import importlib.util, sys\n"
            "spec = importlib.util.spec_from_file_location('p', sys.argv[1])\n"
            "module = importlib.util.module_from_spec(spec)\n"
            "try: spec.loader.exec_module(module)\n"
            "except ImportError as error: print(error)"
        )
        path = str(tmp_path / "etc" / "plugin" / "http.py")
        shown = subprocess.run(
            [sys.executable, "-c", code, path], check=True, capture_output=True, text=True
        ).stdout
        assert "cannot import name 'RunPromise' from 'http.client'" in shown
        assert path not in shown
