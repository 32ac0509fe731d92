"""Reading JSON that comes from outside."""

import json
from typing import Any


def load_json(text: str | bytes) -> Any:
    """Return the value of a JSON document; raises ValueError, also when it is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
