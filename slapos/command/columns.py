"""Tables for people: cells side by side, one line for each row."""

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table; the first row is its head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def plain(text: str) -> str:
    """Return one line without anything that moves the cursor: customers choose titles."""
    line = " ".join(text.split())
    return "".join(letter if letter.isprintable() else "?" for letter in line)
