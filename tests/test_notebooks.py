"""Every notebook runs on the committed rows and repeats the committed output; it also runs on rows from
elsewhere.
"""

import ast
import contextlib
import io
import json
import os
import shutil
from pathlib import Path

import jupytext
import nbformat
import pytest
from conftest import ROOT, call, make_runs
from matplotlib.figure import Figure
from services import wandb_server

from hbo.analysis import figures, notebooks, paper, published
from hbo.errors import UserError

pytestmark = pytest.mark.slow
SCRIPTS = notebooks.scripts()
SEEDS = [0, 1]


def said(path: Path) -> list[str]:
    """Printed text and displayed tables of the cells; a picture is only named, as its bytes depend on a
    library.
    """
    found = []
    for cell in nbformat.read(path, as_version=4).cells:
        for out in cell.get("outputs", []):
            data = out.get("data", {})
            found.append(
                data.get("text/markdown")
                or ("picture" if "image/png" in data else out.get("text") or data["text/plain"])
            )
    return found


def shown(script: Path) -> list[str]:
    """What the cells of a script show if this process runs them, as `said` names it."""
    found: list[str] = []
    space: dict[str, object] = {}
    for cell in jupytext.read(script).cells:
        *lines, last = ast.parse(cell.source if cell.cell_type == "code" else "None").body
        value, out = None, io.StringIO()
        with contextlib.redirect_stdout(out):
            if not isinstance(last, ast.Expr):
                lines.append(last)
            exec(compile(ast.Module(lines, []), script.name, "exec"), space)
            if isinstance(last, ast.Expr):
                value = eval(compile(ast.Expression(last.value), script.name, "eval"), space)
        found += [out.getvalue()] if out.getvalue() else []
        if isinstance(value, Figure):
            value.savefig(io.BytesIO())
            found.append("picture")
        elif value is not None:
            found.append(value._repr_markdown_())  # pyright: ignore
    return found


def test_each_script_has_its_notebook_and_each_study_its_rows():
    assert len(SCRIPTS) >= 6
    for script in SCRIPTS:
        assert script.with_suffix(".ipynb").exists()
    for path in (ROOT / "ablations").glob("*.csv"):
        if (ROOT / "sweeps" / path.name).with_suffix(".yaml").exists():
            assert path.with_suffix(".py").exists(), f"{path.name}: a study with rows and without a notebook"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_committed_notebook_has_the_cells_and_outputs_of_its_script(script, monkeypatch):
    """Outputs as the rows give them today."""
    committed = nbformat.read(script.with_suffix(".ipynb"), as_version=4)
    assert [cell.source for cell in committed.cells] == [cell.source for cell in jupytext.read(script).cells]
    monkeypatch.chdir(script.parent)
    assert said(script.with_suffix(".ipynb")) == shown(script)


def test_runs_and_wandb_show_the_same_tables(tmp_path):
    """Rows mirrored to a local W&B server and read back by its API, and the folder they came from."""
    runs = make_runs(tmp_path / "runs", "contraction", "mobilenetv2", seed=SEEDS)
    mirror = f"""
import json
from dataclasses import fields
from pathlib import Path
from hbo.runs import tracking
from hbo.config import Run
for path in sorted(Path({str(runs)!r}).glob("*/*/row.json")):
    row = json.loads(path.read_text())
    run = Run(**{{f.name: row[f.name] for f in fields(Run) if f.name in row}} | {{"wandb": "online"}})
    tracking.mirror(run, path.parent, row)
"""
    words = {"runs": (runs / "contraction",), "wandb": ("contraction", "--source", "wandb:local/hbo")}
    with wandb_server(tmp_path) as env:
        env = env | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
        environment = {name: env.get(name) for name in {*env, *os.environ}}
        call("-c", mirror, env=environment | {"WANDB_MODE": None})
        for name, asked in words.items():
            call("hbo.analysis.notebooks", *asked, "--to", tmp_path / name, env=environment)
        kept = list((tmp_path / "cache" / "hbo").rglob("*.json"))
        assert len(kept) == len(list(runs.glob("*/*/row.json"))) == 8
        # Cached rows are not downloaded again: a change in the cache shows.
        kept[0].write_text(kept[0].read_text().replace('"study": "', '"study": "another_'))
        out, _ = call("hbo.analysis.results", "wandb:local/hbo", "--csv", env=environment)
        assert sum("another_" in line for line in out.splitlines()) == 1
    one, other = (said(tmp_path / name / "contraction.ipynb") for name in ("runs", "wandb"))
    assert one == other
    assert any("| k=3 | 2 |" in text for text in one)


def test_a_cell_that_fails_is_one_line(tmp_path):
    script = ROOT / "ablations" / "contraction_uniform.py"
    runs = make_runs(tmp_path / "runs", "mobilenetv2")
    _, err = call("hbo.analysis.notebooks", script, "--source", runs, "--to", tmp_path, expect=2)
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "contains no rows of contraction_uniform; there are mobilenetv2" in line
    assert not (tmp_path / "contraction_uniform.ipynb").exists()


def test_a_study_or_the_folder_of_its_rows_names_its_notebook(tmp_path, capsys):
    runs = make_runs(tmp_path / "runs", "contraction", "mobilenetv2", seed=SEEDS)
    script = ROOT / "ablations" / "contraction.py"
    assert notebooks.named("contraction") == (script, None)
    assert notebooks.named(str(script), "x") == (script, "x")
    # The other rows of its folder are used for comparison.
    assert notebooks.named(str(runs / "contraction")) == (
        script,
        str(runs),
    )
    for word in ("nothing", "nothing.py"):
        with pytest.raises(UserError, match=word):
            notebooks.named(word)
    with pytest.raises(SystemExit) as stop:
        notebooks.main([str(runs / "contraction")])
    assert stop.value.code == 2
    assert "needs --to" in capsys.readouterr().err


def test_a_study_that_fails_does_not_stop_the_others(tmp_path, monkeypatch, capsys):
    """One study has a seed twice, another a damaged outcome: both are named, the rest is built, exit status
    1. Of the paper's own pieces, only those of these studies.
    """
    monkeypatch.setattr(published, "TITLES", {6: published.TITLES[6]})
    monkeypatch.setattr(paper, "_drawn", lambda rows: {"figure1": lambda: figures.figure1(rows)})
    runs = make_runs(tmp_path / "runs", "contraction", "contraction_uniform", "mobilenetv2", seed=SEEDS)
    for study in ("contraction", "contraction_uniform"):
        row = json.loads((path := next((runs / study).glob("*/row.json"))).read_text())
        if study == "contraction_uniform":
            path.write_text(json.dumps(row | {"correct": "!"}))
            continue
        shutil.copytree(path.parent, path.parents[1] / "twice")
        # An edited row.
        fields = {name: value for name, value in row.items() if name not in ("git", "identity")}
        (path.parents[1] / "twice" / "row.json").write_text(json.dumps(fields | {"key": "twice"}))
    with pytest.raises(SystemExit) as stop:
        paper.main(["--source", str(runs), "--to", str(tmp_path / "out")])
    assert stop.value.code == 1
    err = capsys.readouterr().err
    said = [line for line in err.splitlines() if line.startswith("error: ")]
    assert [line.split(": ")[1] for line in said] == ["contraction", "contraction_uniform"]
    assert "the same run with the same seed" in said[0]
    assert "Traceback" not in err
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"mobilenetv2.html", "mobilenetv2.tex", "claims.md", "figure1.pdf", "table6.tex"} <= names
    assert not {"contraction.html", "contraction_uniform.html"} & names
    table6 = (tmp_path / "out" / "table6.md").read_text()
    assert "on elpv" not in table6  # the release's rows are in the study that cannot be read


def test_make_paper_builds_every_table_and_figure(tmp_path):
    """From the committed rows of a study of each task."""
    to = tmp_path / "out"
    (tmp_path / "rows").mkdir()
    for study in ("contraction", "detection_bccd", "reid_coil20"):
        for name in (f"{study}.csv", f"{study}_curves.csv"):
            shutil.copy(ROOT / "ablations" / name, tmp_path / "rows")
    out, _ = call("hbo.analysis.paper", "--source", tmp_path / "rows", "--to", to)
    tables = [f"table{n}" for n in range(1, 10)] + [
        "claims",
        "contraction",
        "contraction_differences",
    ]
    pictures = [f"figure{n}" for n in range(1, 5)] + [
        "stages",
        "maps",
        "contraction_k",
        "contraction_macs",
        "contraction_curves",
    ]
    for stem in tables:
        assert all((to / f"{stem}.{kind}").stat().st_size > 100 for kind in ("md", "tex", "csv"))
    for stem in pictures:
        assert (to / f"{stem}.pdf").read_bytes().startswith(b"%PDF")
        assert (to / f"{stem}.svg").read_text().rstrip().endswith("</svg>")
        assert (to / f"{stem}.png").read_bytes().startswith(b"\x89PNG")
    assert f"{len(list(to.iterdir()))} files" in out
    assert "74.5 ± 1.3 (n=6)" in (to / "table6.md").read_text()
