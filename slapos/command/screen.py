"""Lines that are drawn again and again at the same place of a terminal."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import IO


class Screen:
    """The place on a terminal; what does not fit into it is cut off."""

    def __init__(self, stream: IO[str], size: Callable[[], tuple[int, int]]) -> None:
        """`size` returns the terminal's columns and lines."""
        self._stream = stream
        self._size = size
        self._drawn = 0

    def draw(self, lines: Sequence[str]) -> None:
        """Draw the lines over those drawn before."""
        shown = list(lines)
        columns, rows = self._size()
        width, height = max(columns - 1, 20), max(rows - 2, 5)
        if len(shown) > height:  # what has scrolled away cannot be drawn over
            shown[height:] = [f"  and {len(shown) - height} more"]
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        text = "".join(f"\r\x1b[2K{line[:width]}\n" for line in shown)
        self._stream.write(f"{up}{text}\x1b[J")
        self._stream.flush()
        self._drawn = len(shown)


def size_of(stream: IO[str]) -> tuple[int, int]:
    """Return a terminal's columns and lines."""
    with suppress(OSError):
        columns, lines = os.get_terminal_size(stream.fileno())
        return columns or 80, lines or 24
    return 80, 24
