"""The page on what goes wrong names tests that there are."""

import re
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
PAGE = CHECKOUT / "docs" / "explanation" / "robustness.md"


def test_every_test_that_the_page_names_is_there() -> None:
    named = re.findall(r"`(test_\w+)::(test_\w+)`", PAGE.read_text(encoding="utf-8"))
    modules = {path.stem: path.read_text() for path in (CHECKOUT / "tests").rglob("test_*.py")}
    gone = [f"{module}::{name}" for module, name in named if f"def {name}(" not in modules[module]]
    assert len(named) > 40
    assert gone == []
