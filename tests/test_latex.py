"""Tables as LaTeX: their contents, and that a two-column paper compiles with them and nothing exceeds the
text area.
"""

import re
import shutil
import subprocess

import pandas as pd
import pytest
from conftest import ROOT, call

from hbo.analysis import claims, results, study
from hbo.analysis.latex import latex
from hbo.analysis.printed import Table
from hbo.analysis.tables import paper_table

ROWS = results.load(ROOT / "ablations")
NASTY = Table(
    'Of 100 % & $5_#{}~^\\ <tags> | "quotes", été, 花, ± \N{EN DASH} —',
    pd.DataFrame({"a_b %": ["[1]", "*x", "-0.5 ± 0.1", "—", "naïve_café"], "n": ["-1.0", "+2", "—", "73.1 to 75.9", "-0.8 to +2.4"]}),
    ["`pip install -e '.[zoo]'` & 50 %", "one ` alone", "hbonet k=1 of `--net hbonet`, net=hbonet"],
)  # fmt: skip
PAPER = r"""\documentclass[10pt,twocolumn]{article}
\usepackage[letterpaper,textwidth=6.875in,columnsep=0.3125in,textheight=8.875in]{geometry}
\usepackage{booktabs}
\begin{document}
%s
\end{document}
"""


def floats(text: str) -> list[dict[str, list[str]]]:
    """For each float: its label, caption, rows as cells, and the lines of its notes."""
    found = []
    for part in re.findall(r"\\begin\{table\*?\}.*?\\end\{table\*?\}", text, re.DOTALL):
        body = re.search(r"\\toprule\n(.*?)\\bottomrule", part, re.DOTALL)
        assert body is not None
        lines = [line for line in body[1].splitlines() if line.endswith(r"\\")]
        notes = re.findall(
            r"\\begin\{minipage\}\{\\linewidth\}\\footnotesize\n(.*?)\n\\end\{minipage\}", part, re.DOTALL
        )
        cells = [
            re.split(r"(?<!\\)&", re.sub(r"\\begin\{tabular\}.*?\\end\{tabular\}", "head", line))
            for line in lines
        ]
        found.append(
            {"label": re.findall(r"\\label\{(.*?)\}", part), "caption": re.findall(r"\\caption\{(.*)\}", part), "rows": cells, "notes": notes}
        )  # fmt: skip
    return found


@pytest.mark.parametrize("number", range(1, 10))
def test_a_table_of_the_paper_can_be_pasted(number):
    """Every line, at most 8 columns per float, a label, notes inside, all special characters escaped,
    numbered by LaTeX only.
    """
    table = paper_table(number, ROWS)
    text = table.latex()
    assert text.isascii()
    parts = floats(text)
    assert [part["label"] for part in parts] == [
        [f"tab:hbonet-table{number}{n}"] for n in ["", "-2", "-3", "-4", "-5"][: len(parts)]
    ]
    for part in parts:
        assert {len(line) for line in part["rows"]} == {len(part["rows"][0])}
        assert len(part["rows"][0]) <= 8
        assert len(part["rows"]) == len(table.frame) + 1
        assert not part["caption"][0].startswith("Table")
    assert parts[0]["notes"]
    first = [line[0].strip() for line in parts[0]["rows"][1:]]
    assert all(
        a.lower().replace("-", "") == str(b).lower().replace("-", "")
        for a, b in zip(first, table.frame.iloc[:, 0], strict=True)
    )
    assert not re.search(r"(?<!\\)[%#]", text.replace("% \\usepackage{booktabs}\n", ""))
    shown = {c for part in parts for c in " ".join(" ".join(line) for line in part["rows"]).split()}
    for name in table.frame.columns[1:]:  # each number is in a float, or a note names its column
        left_out = any(name in note for note in parts[0]["notes"])
        cells = {
            str(c).split()[0].replace("-", "$-$")
            for c in table.frame[name]
            if re.fullmatch(r"[-+]?\d.*", str(c))
        }
        assert left_out or cells <= {re.sub(r"^\{\}", "", word) for word in shown}, name


def test_networks_have_the_papers_names_and_flags_stay_as_typed():
    text = NASTY.latex()
    assert r"HBONet k=1 of \texttt{--net hbonet}, net=hbonet" in text
    first = [line[0].strip() for line in floats(paper_table(2, ROWS).latex())[0]["rows"][1:]]
    assert first[:2] == ["MobileNetV2 1.0 at 224", "HBONet 1.0 at 224"]
    assert "ResNet-50" in paper_table(9, ROWS).latex()
    assert "ShuffleNetV2" in paper_table(7, ROWS).latex()


def test_signs_are_escaped():
    rows = floats(NASTY.latex())[0]["rows"]
    cells = [[cell.strip().removesuffix(r"\\").strip() for cell in line] for line in rows]
    assert cells == [
        [r"a\_b \%", "n"], ["{}[1]", "$-$1.0"], ["{}*x", "+2"], [r"$-$0.5 $\pm$ 0.1", "--"],
        ["--", "73.1 to 75.9"],
        [r"naïve\_café", "$-$0.8 to +2.4"],
    ]  # fmt: skip
    assert NASTY.latex("own").count(r"\label{tab:own}") == 1


def test_a_wide_table_is_continued_with_all_columns():
    wide = Table("Wide", pd.DataFrame({f"c{i}": [f"{i}.0", f"{i}.5"] for i in range(20)}))
    parts = floats(latex(wide))
    assert [len(part["rows"][0]) for part in parts] == [8, 8, 6]
    names = [cell.strip().removesuffix(r" \\") for part in parts for cell in part["rows"][0]]
    assert [name for name in names if name != "c0"] == [f"c{i}" for i in range(1, 20)]
    assert [part["rows"][0][0].strip() for part in parts] == ["c0"] * 3
    nearly = Table("Nearly", pd.DataFrame({f"c{i}": [f"{i}.0", f"{i}.5"] for i in range(9)}))
    assert [len(part["rows"][0]) for part in floats(latex(nearly))] == [5, 5]  # no column stands alone


def test_a_constant_column_becomes_a_note():
    frame = pd.DataFrame(
        {f"c{i}": [f"{i}.0", f"{i}.5"] for i in range(7)} | {"n": ["6", "6"], "p": ["—", "—"]}
    )
    (part,) = floats(latex(Table("Same", frame)))
    assert len(part["rows"][0]) == 8
    assert part["notes"] == ["Columns without a number are left out: p."]
    (part,) = floats(latex(Table("Same", frame.assign(q=["5.5", "5.5"], r=["1.0", "2.0"]))))
    assert part["notes"] == [
        "Columns without a number are left out: p.\n\nThe same in every line: n 6, q 5.5."
    ]


def test_a_table_without_lines_is_a_comment():
    assert latex(Table("Nothing to compare", pd.DataFrame())) == "% Nothing to compare: no lines\n"


@pytest.mark.slow
def test_one_file_per_table(tmp_path):
    out, _ = call("hbo.analysis.tables", 2, 5, "--format", "latex", "--to", tmp_path / "tex")
    assert out.split() == [str(tmp_path / "tex" / f"table{n}.tex") for n in (2, 5)]
    for n in (2, 5):
        part, *_ = floats((tmp_path / "tex" / f"table{n}.tex").read_text())
        assert part["label"] == [f"tab:table{n}"]
    out, _ = call("hbo.analysis.tables", 5, "--format", "csv")
    assert out == paper_table(5, ROWS).frame.to_csv(index=False)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_a_paper_of_two_columns_compiles_with_all_of_them(tmp_path):
    """Every table of the paper, the claims, and a study of each task: no error, and nothing exceeds the text
    area.
    """
    tables = {f"table{n}": paper_table(n, ROWS) for n in range(1, 10)}
    tables |= {"claims": claims.table(claims.check(ROWS)), "nasty": NASTY}
    for name in ("contraction", "contraction_cifar10", "detection_bccd", "reid_coil20", "elpv_tuning"):
        it = study.read(name)
        own = {
            "": it.table(),
            "-differences": it.differences(),
            "-images": it.images(),
            "-run": it.provenance(),
        }
        tables |= {f"{name}{what}": table for what, table in own.items() if table is not None}
    text = "\n".join(
        rf"See table~\ref{{tab:{name}}}." + table.latex(name) + r"\clearpage"
        for name, table in tables.items()
    )
    (tmp_path / "paper.tex").write_text(PAPER % text)
    for _ in range(2):
        done = subprocess.run(
            ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-2000:]
    log = (tmp_path / "paper.log").read_text(errors="replace")
    assert not re.search(r"Overfull|undefined|multiply defined|too large|Missing character", log), log
    assert (tmp_path / "paper.pdf").read_bytes().startswith(b"%PDF")
