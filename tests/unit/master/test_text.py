import pytest

from slapos.master.text import checked_text
from slapos.protocol.errors import InvalidRequest


def test_text_comes_back_as_it_is() -> None:
    assert checked_text("a title", "Grüße, 世界", 20) == "Grüße, 世界"
    assert checked_text("a netmask", "", 20, empty=True) == ""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "a title is empty"),
        ("ä" * 11, "a title has 22 bytes, 20 are allowed"),
        ("a\0b", "control characters"),
        ("a\tb", "control characters"),
        ("\ud800", "no valid text"),
    ],
)
def test_what_cannot_be_stored_everywhere_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        checked_text("a title", text, 20)
