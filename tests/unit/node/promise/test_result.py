from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slapos.node.promise.result import (
    MESSAGE_LENGTH,
    PromiseResult,
    from_document,
    shortened,
    to_document,
)
from slapos.protocol.errors import MalformedDocument

DOCUMENT = {
    "title": "port",
    "name": "port.py",
    "path": "/p/etc/plugin/port.py",
    "execution-time": 0.05,
    "result": {
        "type": "Anomaly Result",
        "failed": True,
        "date": "2026-03-01T12:00:00+0000",
        "message": "down",
    },
}
RESULT = PromiseResult(
    title="port",
    failed=True,
    message="down",
    date=datetime(2026, 3, 1, 12, tzinfo=UTC),
    execution_time=0.05,
    kind="Anomaly Result",
)


def test_the_document_has_exactly_the_keys_that_monitors_read() -> None:
    assert to_document(RESULT, name="port.py", path="/p/etc/plugin/port.py") == DOCUMENT


def test_a_document_reads_back() -> None:
    assert from_document(DOCUMENT) == RESULT


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {**DOCUMENT, "result": None},
        {**DOCUMENT, "execution-time": "long"},
        {**DOCUMENT, "result": {**RESULT.__dict__, "type": "Test Result", "date": "yesterday"}},
        {**DOCUMENT, "result": {"type": "Empty Result", "failed": False, "message": None}},
    ],
)
def test_what_is_no_result_is_refused(document: Any) -> None:
    with pytest.raises(MalformedDocument):
        from_document(document)


@given(st.text(max_size=3 * MESSAGE_LENGTH))
def test_of_a_long_message_the_end_is_kept(message: str) -> None:
    short = shortened(message)
    assert len(short) <= MESSAGE_LENGTH + 3
    assert short.endswith(message[-MESSAGE_LENGTH:])
