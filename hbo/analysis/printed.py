"""A table with its title and notes, printed as Markdown, LaTeX (booktabs) or CSV."""

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from hbo.analysis import results
from hbo.analysis.latex import latex
from hbo.files import write_atomically

SUFFIXES = {"markdown": "md", "latex": "tex", "csv": "csv"}


class Markdown(str):
    """Text that notebooks display as Markdown."""

    def _repr_markdown_(self) -> str:
        return str(self)


@dataclass(repr=False)
class Table:
    """A table with its title and notes."""

    title: str
    frame: pd.DataFrame
    notes: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        """Markdown, for code hosts and notebooks."""
        notes = "".join(f"\n\n{note}" for note in self.notes)
        return f"**{self.title}**\n\n{results.markdown(self.frame)}{notes}"

    def latex(self, label: str | None = None) -> str:
        """LaTeX floats for a paper (`hbo.analysis.latex`)."""
        return latex(self, label)

    def __repr__(self) -> str:
        return self.markdown()

    _repr_markdown_ = markdown


def write(table: Table, stem: Path, kind: str) -> Path:
    """Write STEM.md, .tex or .csv of a table; its LaTeX label is the stem's name."""
    path = stem.with_name(f"{stem.name}.{SUFFIXES[kind]}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text(table, kind, stem.name))
    return path


def text(table: Table, kind: str, label: str | None = None) -> str:
    """A table as markdown, latex or csv."""
    if kind == "latex":
        return table.latex(label)
    return table.frame.to_csv(index=False) if kind == "csv" else table.markdown() + "\n"
