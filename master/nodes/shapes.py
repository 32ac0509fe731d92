"""Parts of what is asked and answered about nodes and the catalogue."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from slapos.master.nodes.model import REFERENCE_LENGTH


def _as_reference(thing: object) -> object:
    return getattr(thing, "reference", thing)


def _without_default(schema: dict[str, Any]) -> None:
    """Have nothing said of the default: it only stands for what is not there."""
    schema.pop("default", None)


#: What something else is known by, such as PROJ-1; it may be given as that thing.
Reference = Annotated[str, BeforeValidator(_as_reference)]
#: A text of one line that is not empty.
Text = Annotated[str, Field(min_length=1, max_length=REFERENCE_LENGTH)]
#: What a field of a change is that is left out; null is told apart from it where it means "none".
LEFT_OUT: Any = Field(default=None, json_schema_extra=_without_default)
