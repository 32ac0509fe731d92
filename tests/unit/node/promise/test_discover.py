from pathlib import Path

from slapos.node.promise.discover import find_promises


def make(directory: Path, name: str, mode: int = 0o644) -> None:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    path.chmod(mode)


def titles(directory: Path) -> dict[str, str]:
    return {promise.title: promise.name for promise in find_promises(directory).files}


def test_no_folders_no_promises(tmp_path: Path) -> None:
    assert find_promises(tmp_path).files == ()


def test_plugins_come_first_then_executables_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("etc/plugin/z.py", "etc/plugin/b.py", "etc/promise/a"):
        make(tmp_path, name, 0o755)
    assert list(titles(tmp_path)) == ["b", "z", "a"]


def test_only_python_files_are_plugins(tmp_path: Path) -> None:
    for name in ("__init__.py", "a.pyc", "a.py~", ".a.py", "README", "a.py"):
        make(tmp_path, f"etc/plugin/{name}")
    (tmp_path / "etc/plugin/folder.py").mkdir()
    (tmp_path / "etc/plugin/dangling.py").symlink_to("nowhere")
    assert titles(tmp_path) == {"a": "a.py"}


def test_a_file_that_cannot_be_executed_is_told_apart(tmp_path: Path) -> None:
    make(tmp_path, "etc/promise/yes", 0o755)
    make(tmp_path, "etc/promise/no", 0o644)
    found = find_promises(tmp_path)
    assert [promise.name for promise in found.files] == ["yes"]
    assert [path.name for path in found.not_executable] == ["no"]


def test_no_two_promises_share_a_title(tmp_path: Path) -> None:
    for name in ("etc/plugin/a.py", "etc/promise/a", "etc/promise/a.py", "etc/promise/a.sh"):
        make(tmp_path, name, 0o755)
    assert titles(tmp_path) == {"a": "a.py", "a-2": "a", "a.py": "a.py", "a.sh": "a.sh"}
