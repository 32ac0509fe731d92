"""The rules of `docs/architecture.md`, checked."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("slapos", "master", "node", "recipes")
FILES = sorted(p for folder in FOLDERS for p in (ROOT / folder).rglob("*.py"))

# (who, must not import)
FORBIDDEN = [
    ("slapos/protocol", "slapos.system"),
    *[
        (who, f"slapos.{what}")
        for who in ("slapos/protocol", "slapos/system")
        for what in ("master", "node", "recipes", "command")
    ],
    *[("master", f"slapos.{what}") for what in ("node", "recipes", "command")],
    *[("node", f"slapos.{what}") for what in ("master", "recipes", "command")],
    *[("recipes", f"slapos.{what}") for what in ("master", "node", "command")],
    *[(who, what) for who in ("node", "recipes") for what in ("flask", "sqlalchemy", "alembic")],
    ("master", "zc"),
    ("master", "supervisor"),
]


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(("who", "what"), FORBIDDEN)
def test_imports_point_one_way(who: str, what: str) -> None:
    found = [
        str(path.relative_to(ROOT))
        for path in FILES
        if path.is_relative_to(ROOT / who)
        and any(name == what or name.startswith(what + ".") for name in imports(path))
    ]
    assert found == []


@pytest.mark.parametrize("layer", ["model.py", "service.py"])
def test_services_and_models_do_not_know_http(layer: str) -> None:
    found = [p for p in FILES if p.name == layer and any(n.startswith("flask") for n in imports(p))]
    assert found == []


def test_slapos_is_shared_with_other_distributions() -> None:
    """Nothing lies right in the namespace: no `__init__.py`, no module."""
    assert list((ROOT / "slapos").glob("*.py")) == []


@pytest.mark.parametrize("name", ["master", "node", "recipes"])
def test_each_folder_is_the_package_of_its_name(name: str) -> None:
    assert (ROOT / "slapos" / name).resolve() == ROOT / name
