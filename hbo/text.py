"""Tables in a terminal."""

from collections.abc import Collection, Sequence


def aligned(lines: Sequence[Sequence[str]], right: Collection[int] = ()) -> list[str]:
    """Lines of cells with their columns under each other, two blanks apart.

    Args:
        lines: cells, as many in each; the head is a line like any other.
        right: columns, from 0, that stand to the right, such as numbers.
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    place = [str.rjust if i in right else str.ljust for i in range(len(widths))]
    return ["  ".join(f(cell, w) for f, cell, w in zip(place, line, widths, strict=True)).rstrip() for line in lines]
