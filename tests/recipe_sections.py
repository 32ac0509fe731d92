"""A tiny buildout for tests of single recipes: real options, no profile, no installation."""

from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slapos.recipes.buildout.options import Options


class FakeBuildout(dict[str, Any]):
    """Sections by name; `directory` is where it would run."""

    def __init__(self, directory: Path, **sections: Mapping[str, Any]) -> None:
        super().__init__()
        own = {f"{name}-directory": str(directory / name) for name in ("bin", "parts", "eggs")}
        own |= {"directory": str(directory), "develop-eggs-directory": str(directory / "develop")}
        for name, options in {"buildout": {**own, "offline": "true"}, **sections}.items():
            self.add(name, options)

    def add(self, name: str, options: Mapping[str, Any]) -> Any:
        """Make a section; texts are as in a profile, other values as from a recipe."""
        texts = {key: value for key, value in options.items() if isinstance(value, str)}
        self[name] = section = Options(self, name, texts)
        for key, value in options.items():
            if key not in texts:
                section[key] = value
        return section

    def make(self, recipe: Any, name: str = "part", /, **options: Any) -> Any:
        """Return a recipe for a section; `_` in the options' names is `-`."""
        section = self.add(name, {key.replace("_", "-"): value for key, value in options.items()})
        return recipe(self, name, section)

    def preset(self, section: str, values: Mapping[str, Any]) -> None:
        for option, value in values.items():
            self[section][option] = value

    def note_reading(self, *_what: Any) -> None:
        return

    def place_of(self, _section: str) -> str | None:
        return None

    def source_of(self, _section: str, _option: str = "") -> str | None:
        return None

    @contextmanager
    def constructing(self, _options: Any) -> Any:
        yield
