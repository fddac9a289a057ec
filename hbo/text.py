"""Tables in a terminal, and counts in sentences."""

from collections.abc import Collection, Sequence


def counted(number: float, what: str) -> str:
    """`1 epoch`, `2 epochs`."""
    return f"{number} {what}{'s' * (number != 1)}"


def aligned(lines: Sequence[Sequence[str]], right: Collection[int] = ()) -> list[str]:
    """Align cells in columns, two spaces apart.

    Args:
        lines: rows of cells, all of the same length, the header included.
        right: columns, from 0, to align right, such as numbers.
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    place = [str.rjust if i in right else str.ljust for i in range(len(widths))]
    return [
        "  ".join(f(cell, w) for f, cell, w in zip(place, line, widths, strict=True)).rstrip()
        for line in lines
    ]
