"""How it is told that an instance waits for another one."""

import pytest

from slapos.protocol.prerequisite import read_waiting_sentence, waiting_sentence

SENTENCE = waiting_sentence("a database", ", it has not published url")


@pytest.mark.parametrize("before", ["", "Error: ", "[child] ", "Error: [child] "])
def test_what_is_said_is_understood_as_buildout_repeats_it(before: str) -> None:
    assert read_waiting_sentence(f"{before}{SENTENCE}") == SENTENCE


@pytest.mark.parametrize(
    "error", ["", "Error: no", f"Error: no [child] {SENTENCE}", "Error: waiting for a lock"]
)
def test_another_error_is_another_error(error: str) -> None:
    assert read_waiting_sentence(error) is None
