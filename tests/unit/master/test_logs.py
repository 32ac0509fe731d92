"""How things are logged."""

import json
import logging
import sys

from slapos.master.traffic.logs import FIELDS, JsonLines, TextLines


def record(message: str, *, failed: bool = False, **fields: object) -> logging.LogRecord:
    error = None
    if failed:
        try:
            raise ValueError("first\n2026-01-01 INFO forged")
        except ValueError:
            error = sys.exc_info()
    made = logging.LogRecord("a.log", logging.WARNING, "x.py", 1, message, (), error)
    made.created = 0.25
    setattr(made, FIELDS, fields)
    return made


def test_a_text_has_one_line_whatever_is_said() -> None:
    line = TextLines().format(record("one\r\ntwo\x1b[0m\u2028", path="/\n"))
    assert line == (
        "1970-01-01T00:00:00.250+00:00 WARNING a.log one\\r\\ntwo\\x1b[0m\\u2028 path=/\\n"
    )


def test_the_lines_of_an_exception_do_not_look_like_others() -> None:
    first, *rest = TextLines().format(record("it failed", failed=True)).splitlines()
    assert first.endswith("it failed")
    assert rest[-1] == "    | 2026-01-01 INFO forged"
    assert all(line.startswith("    | ") for line in rest)


def test_json_has_one_line_with_all_fields() -> None:
    line = JsonLines().format(record("one\ntwo", failed=True, status=200, odd={1}))
    assert "\n" not in line
    told = json.loads(line)
    assert told["at"] == "1970-01-01T00:00:00.250+00:00"
    assert told["level"] == "warning"
    assert (told["message"], told["status"], told["odd"]) == ("one\ntwo", 200, "{1}")
    assert "ValueError" in told["exception"]
