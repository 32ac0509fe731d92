"""Promises that need no process: ours, of which we know that they leave nothing behind.

A process costs more than ten such promises. One that is not quick is interrupted, and run again
where it hinders nobody.
"""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from slapos.node.promise.execution import Outcome, check_options, outcome_of
from slapos.node.promise.generic import GenericPromise
from slapos.node.promise.plugin_source import PluginSource
from slapos.node.promise.process import SHORT
from slapos.node.promise.result import Mode


class _TooSlow(BaseException):
    """It takes longer than SHORT."""


def run_in_place(
    plugin: PluginSource, partition: Path, config: dict[str, Any], mode: Mode
) -> Outcome | None:
    """Run a plugin in this process, the main thread of which this has to be.

    Returns None where it is none of those, or slow, or anything is wrong with it: it is then to be
    run as any other.
    """
    # What a release puts in the place of our module is no longer ours.
    module = sys.modules.get(plugin.module)
    if module is None or plugin.options is None:
        return None
    try:
        check_options(plugin.options, config)
        promise = module.RunPromise(config | plugin.options)
        if not promise.is_interruptible(partition):
            return None
        return outcome_of(promise, mode, sense=_sense)
    except (Exception, _TooSlow):  # noqa: BLE001 - it is told by whom it happens to again
        return None


def _sense(promise: GenericPromise) -> None:
    with _interrupted_after(SHORT):
        promise.sense()


@contextmanager
def _interrupted_after(seconds: float) -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, _interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _interrupt(*_: object) -> NoReturn:
    raise _TooSlow
