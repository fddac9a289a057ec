"""One self-contained HTML page of a study: question, verdict, every run, tables, figures, and how it was run.

python -m hbo.analysis.report contraction                       # contraction.html, from ablations/
python -m hbo.analysis.report runs/contraction runs/mobilenetv2 --to report.html

The page loads no other files; `page/` has its template, style and script.
"""

import base64
import sys
from pathlib import Path
from typing import Any

from hbo.analysis import dots, numbers
from hbo.analysis import study as studies
from hbo.analysis.grouping import full_labels
from hbo.analysis.judged import SWEEPS
from hbo.analysis.printed import Table
from hbo.analysis.study import Study
from hbo.errors import one_line
from hbo.files import write_atomically
from hbo.words import Parser

PAGE = Path(__file__).parent / "page"


def page(*settings: Study) -> str:
    """The page's HTML, one section per setting."""
    from jinja2 import Environment, FileSystemLoader
    from markupsafe import Markup

    world = Environment(loader=FileSystemLoader(PAGE), autoescape=True)
    world.filters["code"] = _code
    first = settings[0]
    own = {name: Markup((PAGE / f"page.{name}").read_text()) for name in ("css", "js")}
    parts = [_part(study) for study in settings]
    return world.get_template("page.html").render(
        title=", ".join(first.names), question=first.question(), parts=parts, **own
    )


def _code(text: str) -> Any:
    """Text with `commands` in typewriter font, and no line break before %."""
    from markupsafe import Markup, escape

    pieces = text.replace(" %", "\N{NO-BREAK SPACE}%").split("`")
    if len(pieces) % 2 == 0:
        pieces = [text]
    return Markup("").join(
        Markup("<code>{}</code>").format(p) if i % 2 else escape(p) for i, p in enumerate(pieces)
    )


def _part(study: Study) -> dict[str, Any]:
    """The contents of a section."""
    from hbo.analysis import figures

    names = {arm: full for arm, full in full_labels(study.done).items() if arm != full}
    optional: list[Any] = [study.images(), study.effects()]
    tables = [study.table(), study.differences(), *(table for table in optional if table is not None)]
    drawn = [
        (_said(name, figure), figures.as_bytes(figure, "svg")) for name, figure in figures.of(study).items()
    ]
    return {
        "which": study.which,
        "warning": study.warning(),
        "conclusion": study.conclusion(),
        "firm": study.is_firm(),
        "provision": study.provision(),
        "findings": study.findings(),
        "explored": study.explored(),
        "pairing": study.pairing(),
        "runs": dots.dots(study, _colours(study)),
        "tables": [_table(table, names) for table in tables if len(table.frame)],
        "pictures": [{"said": said, "data": base64.b64encode(svg).decode()} for said, svg in drawn],
        "provenance": _table(study.provenance(), {}) | {"notes": _commands(study)},
    }


def _commands(study: Study) -> list[str]:
    """The sweep of each study that has a file."""
    files = [SWEEPS / f"{name}.yaml" for name in study.names]
    return [
        f"`python -m hbo.sweep run sweeps/{file.name}` starts its runs; add --set for what differs from the"
        " file, such as data_dir. Each dot above shows its run's command."
        for file in files
        if file.is_file()
    ]


def _table(table: Table, names: dict[str, str]) -> dict[str, Any]:
    """A table for the template; numbers are aligned right, and an arm's short name
    has its full name as tooltip.

    Args:
        table: any; without column names it has no header.
        names: an arm's name -> its full name, if different.
    """
    columns = [table.frame.iloc[:, i] for i in range(table.frame.shape[1])]
    right = [all(map(numbers.is_number, column)) for column in columns]
    cell = lambda value, number: {
        "text": numbers.plain(value),
        "number": number,
        "full": names.get(str(value)),
    }
    return {
        "title": table.title,
        "notes": table.notes,
        "named": any(table.frame.columns),
        "heads": [
            {"words": str(c.name).split() or ["\N{NO-BREAK SPACE}"], "number": number}
            for c, number in zip(columns, right, strict=True)
        ],
        "lines": [
            [cell(v, n) for v, n in zip(line, right, strict=True)]
            for line in table.frame.astype(object).values.tolist()
        ],
    }


def _colours(study: Study) -> dict[str, str]:
    """Arm -> its colour, the same in the figures."""
    from hbo.analysis.figures import looks

    return {arm: look.colour for arm, look in looks(study.arms).items()}


def _said(name: str, figure: Any) -> str:
    """A picture's alternative text."""
    axes = figure.axes[0] if figure.axes else None
    return (
        f"{axes.get_ylabel()} against {axes.get_xlabel()}"
        if axes and axes.get_xlabel() and axes.get_ylabel()
        else name
    )


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = Parser(prog="python -m hbo.analysis.report", description="One HTML page of a study.")
    studies.add_arguments(parser)
    parser.add_argument("--to", type=Path, help="File of the page. [STUDY.html]")
    args = parser.parse_args(argv)
    with one_line():
        found = studies.from_arguments(args)
        path = args.to or Path(f"{found[0].names[0]}.html")
        write_atomically(path, page(*found))
    for study in found:
        if warning := study.warning():
            print(warning, file=sys.stderr)
        print(f"{path}: {f'{study.which}: ' * bool(study.which)}{study.conclusion()}")


if __name__ == "__main__":
    main()
