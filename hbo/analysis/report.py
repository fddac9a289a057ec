"""One self-contained HTML page of a study: its question, tables, plots, verdict, and how it was run.

python -m hbo.analysis.report contraction                       # contraction.html, from the rows in ablations/
python -m hbo.analysis.report contraction mobilenetv2 --source runs --to report.html
"""

import base64
from pathlib import Path
from typing import Any

from hbo.analysis import study as studies
from hbo.analysis.study import Study
from hbo.errors import one_line
from hbo.files import write_atomically
from hbo.words import Parser

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{{ title }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; font-size: 0.85rem; margin: 0.5rem 0 } td, th { padding: 0.2rem 0.6rem; text-align: left }
thead { border-top: 2px solid; border-bottom: 1px solid } tbody { border-bottom: 2px solid } .scroll { overflow-x: auto }
.note { font-size: 0.85rem; color: #555 } .verdict { border-left: 4px solid #0072B2; padding-left: 1rem } img { max-width: 100% }
</style></head><body>
{% macro show(table) %}<h2>{{ table.title }}</h2><div class="scroll">
<table><thead><tr>{% for name in table.frame.columns %}<th>{{ name }}</th>{% endfor %}</tr></thead><tbody>
{% for line in table.frame.values.tolist() %}<tr>{% for cell in line %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>{% for note in table.notes %}<p class="note">{{ note }}</p>{% endfor %}{% endmacro %}
<h1>{{ title }}</h1><p>{{ question }}</p>
{% for part in parts %}{% if part.which %}<h2>{{ part.which }}</h2>{% endif %}
<div class="verdict"><p><b>{{ part.conclusion }}</b></p><ul>{% for line in part.findings %}<li>{{ line }}</li>{% endfor %}</ul></div>
{% for table in part.tables %}{{ show(table) }}{% endfor %}
<h2>Figures</h2>
{% for name, picture in part.pictures.items() %}<p><img alt="{{ name }}" src="data:image/svg+xml;base64,{{ picture }}"></p>{% endfor %}
{{ show(part.provenance) }}
{% endfor %}</body></html>
"""


def page(*settings: Study) -> str:
    """The page's HTML, a section a setting; it loads nothing from anywhere."""
    from jinja2 import Environment

    first, parts = settings[0], [_part(study) for study in settings]
    page = Environment(autoescape=True).from_string(PAGE)
    return page.render(title=", ".join(first.names), question=first.question(), parts=parts)


def _part(study: Study) -> dict[str, Any]:
    """What a section shows."""
    from hbo.analysis import figures

    optional: list[Any] = [study.images(), study.effects()]
    return {
        "which": study.which,
        "conclusion": study.conclusion(),
        "findings": study.findings(),
        "tables": [study.table(), study.differences(), *(table for table in optional if table is not None)],
        "pictures": {name: base64.b64encode(figures.as_bytes(f, "svg")).decode() for name, f in figures.of(study).items()},
        "provenance": study.provenance(),
    }


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = Parser(prog="python -m hbo.analysis.report", description="One HTML page of a study.")
    studies.add_arguments(parser)
    parser.add_argument("--to", type=Path, help="The page. [STUDY.html]")
    args = parser.parse_args(argv)
    with one_line():
        found = studies.from_arguments(args)
        path = args.to or Path(f"{args.study[0]}.html")
        write_atomically(path, page(*found))
    for study in found:
        print(f"{path}: {f'{study.which}: ' * bool(study.which)}{study.conclusion()}")


if __name__ == "__main__":
    main()
