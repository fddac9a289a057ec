r"""A table as LaTeX for a paper: only booktabs, a label, notes inside the float, the paper's names.

A float has at most 8 columns and 40 lines, and fits the text: `table` if it fits one of two columns, else
`table*`. A wider table first drops columns without numbers, then columns with the same value in every line (a
note lists both); if still too wide, it continues in further floats, each with the first column.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hbo.analysis.numbers import ABSENT, is_number, plain
from hbo.runs.naming import with_net_names

if TYPE_CHECKING:
    from hbo.analysis.printed import Table

COLUMNS, LINES = 8, 52  # per float
# Points: a column and the text of a two-column page (3.25 in, 6.8 in).
COLUMN, TEXT = (
    235.0,
    490.0,
)
# Letters per line of words, and of a header; columns of a float that continues another.
WORDS, HEADS, LEAST = (
    32,
    (16, 12, 8),
    4,
)
GAP, USUAL = 12.0, 4.25  # points of \footnotesize: between columns, a digit
POINTS = (
    dict.fromkeys(" .,:;'()[]|!ijlt", 2.7)
    | dict.fromkeys("mwMW±+=", 7.0)
    | dict.fromkeys("ABCDEFGHKLNOPQRSTUVXYZ", 6.2)
)
SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$", "|": "$|$", '"': "''",
    "±": r"$\pm$", "\N{MULTIPLICATION SIGN}": r"$\times$", "\N{MINUS SIGN}": "$-$", "≤": r"$\leq$",
    "≥": r"$\geq$",
    "\N{EN DASH}": "--", "—": "--", "…": r"\ldots{}",
}  # fmt: skip
Cells = list[list[str]]  # a list per line, the header first


def latex(table: "Table", label: str | None = None) -> str:
    r"""The floats of a table, one after another; they only need `\usepackage{booktabs}`.

    Args:
        table: any.
        label: of its first float, as `tab:label`; None: made from the title. Further floats get `-2`, `-3`.
    """
    caption, number = _caption(table.title)
    label = label or (
        f"hbonet-table{number}"
        if number
        else re.sub(r"[^a-z0-9]+", "-", table.title.lower().split(":")[0]).strip("-")
    )
    cells = [
        [str(name) for name in table.frame.columns],
        *([plain(v) for v in line] for line in table.frame.astype(object).values),
    ]
    if table.frame.empty:
        return f"% {caption}: no lines\n"
    cells, notes = _narrowed(cells, list(table.notes))
    # Headers with more lines, if that saves a float.
    parts = min((_parts(cells, letters) for letters in HEADS), key=len)
    floats = []
    for i, part in enumerate(parts):
        own = f"tab:{label}" + f"-{i + 1}" * (i > 0)
        title = caption if i == 0 else rf"{caption}; continued from table~\ref{{tab:{label}}}"
        floats.append(_float(part, title, own, notes if i == 0 else []))
    return "% \\usepackage{booktabs}\n" + "\n".join(floats)


def escaped(text: str) -> str:
    """Text escaped for LaTeX; `code` in backticks as typewriter text, outside it
    the paper's names of networks.
    """
    pieces = text.split("`")
    if len(pieces) % 2 == 0:  # an unmatched backtick
        pieces = [text.replace("`", "'")]
    return "".join(
        rf"\texttt{{{_signs(p)}}}" if i % 2 else _signs(with_net_names(p)) for i, p in enumerate(pieces)
    )


def _signs(text: str) -> str:
    return "".join(SPECIAL.get(sign, sign if ord(sign) < 0x180 else f"U+{ord(sign):04X}") for sign in text)


def _cell(text: str) -> str:
    """A cell, with real minus signs, and without a leading bracket that LaTeX would read as an option."""
    if is_number(text):
        return "--" if text == ABSENT else re.sub(r"(?<![\w.])-(?=[\d.])", "$-$", _signs(text))
    if len(text) > WORDS:
        return rf"\parbox[t]{{{USUAL * WORDS:.0f}pt}}{{\raggedright {escaped(text)}\strut}}"
    return ("{}" if text[:1] in ("[", "*") else "") + escaped(text)


def _caption(title: str) -> tuple[str, str]:
    """A title as a caption, with the table's number in the paper as text: LaTeX numbers tables itself."""
    found = re.match(r"Table (\d+)\. (.*)", title)
    return (
        (rf"{escaped(found[2])} (table {found[1]} of the HBONet paper)", found[1])
        if found
        else (escaped(title), "")
    )


def _narrowed(cells: Cells, notes: list[str]) -> tuple[Cells, list[str]]:
    """Drop columns without numbers, or with the same value in every line, from a table that is too wide; a
    note lists them.
    """
    for same in (True, False):
        width, body = len(cells[0]), cells[1:]
        if width <= COLUMNS:
            break
        columns = {i: {line[i] for line in body} for i in range(1, width)}
        out = [i for i, found in columns.items() if len(found) == 1 and (found == {ABSENT}) == same]
        if out:
            said = ", ".join(cells[0][i] if same else f"{cells[0][i]} {body[0][i]}" for i in out)
            notes = [
                *notes,
                f"Columns without a number are left out: {said}."
                if same
                else f"The same in every line: {said}.",
            ]
        cells = [[cell for i, cell in enumerate(line) if i not in out] for line in cells]
    return cells, notes


def _parts(cells: Cells, letters: int) -> list[Cells]:
    """The cells of each float, with headers in lines of this many letters."""
    head = ["\n".join(_stacked(name, letters)) for name in cells[0]]
    return [part for lines in _by_lines([head, *cells[1:]]) for part in _by_columns(lines)]


def _by_lines(cells: Cells) -> list[Cells]:
    """Parts that fit a page, each with the header."""
    head, *body = cells
    parts, room = [[head]], LINES
    for line in body:
        tall = max(-(-len(cell) // WORDS) for cell in line) or 1
        if room < tall:
            parts.append([head])
            room = LINES
        parts[-1].append(line)
        room -= tall
    return parts


def _by_columns(cells: Cells) -> list[Cells]:
    """Parts that fit the text's width, each with the first column; the last two are
    balanced if the last is small.
    """
    first, *rest = zip(*cells, strict=True)
    parts: list[list[Sequence[str]]] = [[]]
    for column in rest:
        if len(parts[-1]) == COLUMNS - 1 or (parts[-1] and _width([first, *parts[-1], column]) > TEXT):
            parts.append([])
        parts[-1].append(column)
    if len(parts) > 1 and len(parts[-1]) < LEAST - 1:
        both = parts[-2] + parts[-1]
        parts[-2:] = [both[: -(-len(both) // 2)], both[-(-len(both) // 2) :]]
    return [[list(line) for line in zip(first, *part, strict=True)] for part in parts]


def _width(columns: Sequence[Sequence[str]]) -> float:
    """Width of a float in points: the longest line of each column, and the gaps."""
    points = lambda text: sum(POINTS.get(sign, USUAL) for sign in text[:WORDS])
    return sum(max(map(points, [*head.split("\n"), *column])) + GAP for head, *column in columns)


def _stacked(head: str, letters: int) -> list[str]:
    """A column's header in lines of at most this many letters, or of one word."""
    lines = [""]
    for word in re.split(r" (?!px|epochs|\|)", head):  # keep a unit with its number
        if lines[-1] and len(lines[-1]) + len(word) > letters:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def _float(cells: Cells, caption: str, label: str, notes: Sequence[str]) -> str:
    shape, heads, columns = "", [], list(zip(*cells, strict=True))
    for head, *column in columns:
        side = "r" if all(map(is_number, column)) else "l"
        shape += side
        lines = [escaped(line) for line in head.split("\n")]
        stack = rf"\begin{{tabular}}[b]{{@{{}}{side}@{{}}}}" + r" \\ ".join(lines) + r"\end{tabular}"
        heads.append(lines[0] if len(lines) == 1 else stack)
    kind = "table" if _width(columns) <= COLUMN else "table*"
    lines = [
        rf"\begin{{{kind}}}[t]",
        r"\centering\footnotesize",
        rf"\caption{{{caption}}}",
        rf"\label{{{label}}}",
        r"\smallskip",
    ]
    lines += [rf"\begin{{tabular}}{{@{{}}{shape}@{{}}}}", r"\toprule"]
    lines += [" & ".join(heads) + r" \\", r"\midrule"] if any(heads) else []
    lines += [" & ".join(map(_cell, line)) + r" \\" for line in cells[1:]]
    lines += [r"\bottomrule", r"\end{tabular}"]
    if notes:
        said = "\n\n".join(escaped(line) for note in notes for line in note.splitlines())
        lines += ["", r"\smallskip", r"\begin{minipage}{\linewidth}\footnotesize", said, r"\end{minipage}"]
    return "\n".join([*lines, rf"\end{{{kind}}}", ""])
