"""What the master never does, whatever is asked of it: its own source shows it."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Names by which text becomes a program, or bytes any object.
NEVER = frozenset(
    {"eval", "exec", "compile", "system", "popen", "render_template_string", "Markup"}
)
MODULES = frozenset({"subprocess", "pickle", "marshal", "shelve", "yaml", "slapos.system.runner"})


def trees() -> Iterator[tuple[Path, ast.AST]]:
    for path in sorted((ROOT / "master").rglob("*.py")):
        yield path.relative_to(ROOT), ast.parse(path.read_text())


def test_the_master_runs_no_program_and_makes_no_object_of_what_it_is_sent() -> None:
    found = []
    for path, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found += [(path, each.name) for each in node.names if each.name in MODULES]
            elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
                found.append((path, node.module))
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                found += [(path, node.func.id)] if node.func.id in NEVER else []
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                whose = ast.unparse(node.func.value)
                is_pattern = whose == "re" and node.func.attr == "compile"
                if node.func.attr in NEVER and not is_pattern:
                    found.append((path, ast.unparse(node.func)))
    assert found == []


def test_what_is_installed_is_named_by_its_hash() -> None:
    for path in sorted((ROOT / "requirements").glob("*.txt")):
        text = path.read_text().replace("\\\n", " ")
        lines = [line for line in text.splitlines() if line.strip() and line[0] not in "#-"]
        assert lines, path
        for line in lines:
            assert "==" in line.split()[0] or " @ " in line, (path, line[:80])
            assert "--hash=sha256:" in line, (path, line[:80])
