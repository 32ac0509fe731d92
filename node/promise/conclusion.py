"""What a promise's ended process means: its outcome, by the rules of slap-node.md §5.3."""

import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from slapos.node.promise.execution import Outcome, outcome_from_json
from slapos.node.promise.history import History, LogLine, Run, judge
from slapos.node.promise.process import OUTPUT_LIMIT, Ended, Ending
from slapos.node.promise.result import KINDS, Mode, PromiseResult, shortened
from slapos.protocol.errors import MalformedDocument

#: How the anomaly of an executable is counted: so many failures in so many runs.
EXECUTABLE_RUNS = 3
#: What a message repeats of the output of a plugin that came to a bad end, in characters.
REPEATED_OUTPUT = 1000


@dataclass(frozen=True)
class Circumstances:
    """What the meaning of an end depends on; `now` is in seconds since 1970.

    `previous` looks up the result that is stored, which only a bad end needs.
    """

    mode: Mode
    timeout: float
    now: float
    previous: Callable[[], PromiseResult | None]


def outcome_of_plugin(ended: Ended[Any], given: Circumstances) -> Outcome:
    """Return the outcome that a plugin's process answered, or what its bad end amounts to."""
    if ended.ending is Ending.BY_ITSELF:
        try:
            return outcome_from_json(ended.answer)
        except MalformedDocument:
            return _bad_end(ended, given)
    return _bad_end(ended, given)


def outcome_of_executable(ended: Ended[Any], given: Circumstances, history: History) -> Outcome:
    """Return the outcome of an executable: 0 is well; an anomaly is three failures in a row."""
    if ended.ending is not Ending.BY_ITSELF:
        return _bad_end(ended, given)
    message = shortened(ended.output) or f"it {_status(ended.status)} and printed nothing"
    line = LogLine(given.now, "ERROR" if ended.status else "INFO", message)
    count = 1 if given.mode == "test" else EXECUTABLE_RUNS
    runs = [Run(given.now, (line,)), *history.newest_first()]
    verdict = judge(runs, now=given.now, result_count=count, failure_amount=count)
    # In either mode: an executable never has its instance processed again.
    return Outcome(
        kind=KINDS["test"], failed=verdict.problem, message=verdict.message, lines=(line,)
    )


def _bad_end(ended: Ended[Any], given: Circumstances) -> Outcome:
    """Return the outcome of a promise that said nothing: in a test a failure; when looking for
    anomalies a failure only the second time in a row, for a machine may be busy once.
    """
    message = {
        Ending.OUT_OF_TIME: f"Error: Promise timed out after {given.timeout:g} seconds",
        Ending.TOO_MUCH_OUTPUT: f"Error: Promise printed more than {OUTPUT_LIMIT >> 20} MiB",
        Ending.BY_ITSELF: f"Error: No output returned by the promise: it {_status(ended.status)}",
    }[ended.ending]
    if ended.output and ended.ending is not Ending.TOO_MUCH_OUTPUT:
        message += f"; it printed: {ended.output[-REPEATED_OUTPUT:]}"
    previous = given.previous()
    again = previous is not None and (previous.failed or "error:" in previous.message.lower())
    return Outcome(
        kind=KINDS[given.mode],
        failed=given.mode == "test" or again,
        message=message,
        lines=(LogLine(given.now, "ERROR", message),),
    )


def _status(status: int | None) -> str:
    if status is not None and status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"ended with status {status}"
