"""Showing how an instance tree is doing while one waits: in lines, or live in a terminal."""

import io
from collections.abc import Callable, Iterator, Mapping
from typing import IO

from slapos.command.screen import Screen, size_of
from slapos.command.tree_watch import View
from slapos.protocol.states import InstanceState
from slapos.protocol.tree_status import InstanceStatus, Phase, TreeStatus

#: What is shown of a message, in characters.
SHOWN_MESSAGE = 300


class LineView:
    """One line for each change: for files, pipes, and people who like to scroll."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._last: dict[str, tuple[str, ...]] = {}
        self._trouble = ""

    def show(self, tree: TreeStatus, elapsed: float) -> None:
        """Print the instances that changed."""
        for instance in tree.instances:
            words = describe(instance)
            if self._last.get(instance.guid or instance.title) != words:
                self._last[instance.guid or instance.title] = words
                self._print(elapsed, "  ".join(word for word in words if word))
        self._trouble = ""

    def trouble(self, message: str, elapsed: float) -> None:
        """Print what is the matter, once."""
        if message != self._trouble:
            self._trouble = message
            self._print(elapsed, message)

    def _print(self, elapsed: float, text: str) -> None:
        print(f"[{elapsed:7.1f} s] {text}", file=self._stream, flush=True)


class LiveView:
    """A table that is drawn again and again at the same place of a terminal."""

    def __init__(self, stream: IO[str], size: Callable[[], tuple[int, int]]) -> None:
        """`size` returns the terminal's columns and lines."""
        self._screen = Screen(stream, size)
        self._entered: dict[str, tuple[Phase, float]] = {}
        self._tree: TreeStatus | None = None

    def show(self, tree: TreeStatus, elapsed: float) -> None:
        """Draw the tree."""
        self._tree = tree
        self._draw(elapsed, "")

    def trouble(self, message: str, elapsed: float) -> None:
        """Draw the tree as it was, and what is the matter."""
        self._draw(elapsed, message)

    def _draw(self, elapsed: float, trouble: str) -> None:
        lines = [f"{self._tree.title if self._tree else ''}: {elapsed:.0f} s"]
        if self._tree is not None:
            lines += self._table(self._tree, elapsed)
        if trouble:
            lines.append(trouble)
        self._screen.draw(lines)

    def _table(self, tree: TreeStatus, elapsed: float) -> Iterator[str]:
        healthy_last = sorted(tree.instances, key=lambda one: one.phase is Phase.HEALTHY)
        rows = [(describe(instance), self._age(instance, elapsed)) for instance in healthy_last]
        title, phase, place = (max(len(words[column]) for words, _ in rows) for column in range(3))
        for words, age in rows:
            yield (
                f"  {words[0]:<{title}}  {words[1]:<{phase}}  {age:>5.0f} s  "
                f"{words[2]:<{place}}  {words[3]}"
            ).rstrip()

    def _age(self, instance: InstanceStatus, elapsed: float) -> float:
        """Return for how long the instance has been seen in its phase."""
        key = instance.guid or instance.title
        if self._entered.get(key, (None, 0))[0] is not instance.phase:
            self._entered[key] = (instance.phase, elapsed)
        return elapsed - self._entered[key][1]


def describe(instance: InstanceStatus) -> tuple[str, str, str, str]:
    """Return an instance's title, phase, place, and what is said of it, each in one line."""
    place = f"{instance.partition} on {instance.node}" if instance.partition else ""
    said = instance.message or instance.reason
    if instance.phase is Phase.HEALTHY:
        said = "" if instance.requested_state is InstanceState.STARTED else instance.requested_state
    return instance.title, str(instance.phase), place, _in_one_line(said)


def _in_one_line(text: str) -> str:
    """Return the first line of a message, and the error that buildout ends with."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("Error: ")]
    if errors and errors[-1] not in lines[0]:
        lines[0] = f"{lines[0]}: {errors[-1].removeprefix('Error: ')}"
    return lines[0][:SHOWN_MESSAGE] if lines else ""


def view_for(stream: IO[str], environment: Mapping[str, str], *, quiet: bool = False) -> View:
    """Return a live view for a terminal, one with lines for anything else, or none at all."""
    if quiet:
        return LineView(io.StringIO())
    if stream.isatty() and environment.get("TERM", "dumb") != "dumb":
        return LiveView(stream, lambda: size_of(stream))
    return LineView(stream)
