"""Designs: the number of runs, balanced levels, unaliased main effects, and that the written file runs."""

from collections import Counter
from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT

from hbo.analysis import question, stats, study
from hbo.config import resolve
from hbo.errors import UserError
from hbo.sweep import asked, design, drafting, plan
from hbo.sweep.__main__ import main
from hbo.sweep.study import read

FACTORIAL = ROOT / "sweeps" / "factorial.yaml"
NAMES = ("k", "concat_ratio", "upsample", "residual")


def levels(*counts):
    return {f"x{i}": list(range(n)) for i, n in enumerate(counts)}


def written(kind, tmp_path, base=FACTORIAL, start=None):
    """The new file as read, with its runs resolved."""
    path, said = drafting.write(kind, str(base), str(tmp_path / "new.yaml"), start)
    sweep = read(path, {"out": str(tmp_path / "runs")})
    return sweep, [resolve(**row) for row in sweep.rows], said


def arms_of(runs):
    return list(dict.fromkeys(tuple(getattr(run, name) for name in NAMES) for run in runs))


# ------------------------------------------------------------ combinations


def test_a_third_of_the_factorial(tmp_path):
    """162 runs become 54: 18 of 54 combinations; each level occurs equally often, also with every level of
    the others.
    """
    _sweep, runs, said = written("fraction", tmp_path)
    assert len(runs) == 54
    assert len({run.key() for run in runs}) == 54
    found = arms_of(runs)
    assert len(found) == 18
    for i, j in combinations(range(4), 2):
        met = Counter((arm[i], arm[j]) for arm in found)
        assert set(met.values()) == {18 // len(met)}
        assert len(met) == len({arm[i] for arm in found}) * len({arm[j] for arm in found})
    whole = {tuple(row[name] for name in NAMES) for row in read(FACTORIAL).rows}
    assert set(found) < whole
    assert "upsample = k + concat_ratio (mod 3" in said
    assert "k with part of concat_ratio x upsample" in said
    assert "Not confounded with any interaction of two: residual." in said


@pytest.mark.parametrize(("counts", "runs"), [((3, 3, 3, 2), 18), ((2, 2, 2), 4), ((2, 2, 2, 2, 3), 24), ((2,) * 5, 16), ((3,) * 4, 27), ((2, 2, 2, 3, 3, 3), 36), ((5, 5, 5, 4), 100)])  # fmt: skip
def test_main_effects_of_a_fraction_are_orthogonal(counts, runs):
    """By definition: the centred dummy columns are orthogonal, and the model has full rank."""
    found = design.fraction(levels(*counts)).combinations
    assert len(found) == runs
    assert len({tuple(one.values()) for one in found}) == runs
    columns = [
        np.array([[one[f"x{i}"] == level for level in range(n - 1)] for one in found], float)
        for i, n in enumerate(counts)
    ]
    columns = [column - column.mean(0) for column in columns]
    for a, b in combinations(columns, 2):
        assert np.abs(a.T @ b).max() < 1e-9
    assert np.linalg.matrix_rank(np.hstack([np.ones((runs, 1)), *columns])) == 1 + sum(n - 1 for n in counts)


def test_aliases_are_the_textbooks():
    """2^(4-1) with D = ABC has resolution IV, 2^(5-1) with E = ABCD V: Box, Hunter and Hunter, chapter 6."""
    four, five = (design.fraction({name: [-1, 1] for name in "ABCDE"[:n]}).says for n in (4, 5))
    assert four[1:] == ["Not confounded with any interaction of two: A, B, C, D.",
                        "Interactions of two that are aliased with each other: A x B with C x D; A x C with B x D; A x D with B x C."]  # fmt: skip
    assert five[1:] == ["Not confounded with any interaction of two: A, B, C, D, E."]
    assert design.fraction({name: [-1, 1] for name in "ABC"}).says[1] == (
        "Aliased, and therefore indistinguishable: A with B x C; B with A x C; C with A x B."
    )


def test_a_fraction_that_confounds_main_effects_is_detected():
    pairs = [{"a": i, "b": i, "c": j} for i, j in product((0, 1), (0, 1))]
    with pytest.raises(UserError, match="a and b are confounded in these 4 combinations"):
        design.aliases(pairs, {"a": [0, 1], "b": [0, 1], "c": [0, 1]})


@pytest.mark.parametrize("counts", [(2, 2), (2, 2, 3, 3), (4, 4, 4), (3, 2, 4)])
def test_without_a_regular_fraction_the_factors_are_named(counts):
    with pytest.raises(
        UserError, match=r"three factors with the same prime number of values; x0 has \d, x1 has \d"
    ):
        design.fraction(levels(*counts))


def test_of_two_factors_no_fraction_can_be_had_by_other_numbers_of_values():
    with pytest.raises(UserError, match=r"use one_at_a_time, or take the whole grid$"):
        design.fraction(levels(2, 2))


def test_one_at_a_time(tmp_path):
    _sweep, runs, _ = written("one_at_a_time", tmp_path)
    first, *others = arms_of(runs)
    assert first == (1, 0.25, "nearest", True)
    assert len(others) == 2 + 2 + 2 + 1
    assert all(sum(a != b for a, b in zip(arm, first, strict=True)) == 1 for arm in others)
    assert len(runs) == 8 * 3
    _, runs, _ = written_at(tmp_path / "from", "one_at_a_time", "k=2 residual=false")
    assert arms_of(runs)[0] == (2, 0.25, "nearest", False)
    assert len(runs) == 24


def written_at(folder, kind, start):
    folder.mkdir()
    return written(kind, folder, start=start)


def test_leave_one_out(tmp_path):
    _sweep, runs, _ = written("leave_one_out", tmp_path)
    full, *others = arms_of(runs)
    assert full == (3, 0.75, "transposed", False)
    assert others == [
        (1, 0.75, "transposed", False),
        (3, 0.25, "transposed", False),
        (3, 0.75, "nearest", False),
        (3, 0.75, "transposed", True),
    ]
    assert len(runs) == 5 * 3
    _, runs, _ = written_at(tmp_path / "from", "leave_one_out", "k=2 residual=true")
    assert arms_of(runs)[1:] == [
        (1, 0.75, "transposed", True),
        (2, 0.25, "transposed", True),
        (2, 0.75, "nearest", True),
    ]


# ------------------------------------------------------------ the file


@pytest.mark.parametrize(("kind", "lines"), [("fraction", 7), ("one_at_a_time", 7), ("leave_one_out", 4)])
def test_a_written_file_can_be_planned_and_answers_its_question(kind, lines, tmp_path):
    sweep, runs, _ = written(kind, tmp_path)
    entries = plan.entries(sweep)
    assert {entry.state for entry in entries} == {"missing"}
    family = asked.primary(sweep, entries)
    assert len(family.contrasts) == lines
    assert (family.kind, sweep.primary.metric, sweep.primary.margin) == (
        "effects" if kind == "fraction" else "each",
        "top1",
        1.0,
    )
    assert {run.study for run in runs} == {"new"}
    base = resolve(**read(FACTORIAL).rows[0])
    kept = ("data", "width", "divisor", "scheme", "epochs", "resolution", "lr")
    assert {tuple(getattr(run, name) for name in kept) for run in runs} == {
        tuple(getattr(base, name) for name in kept)
    }
    text = (tmp_path / "new.yaml").read_text()
    assert text.startswith("# Do the parts of the block interact?")
    assert f"# Cost: {len(runs)} runs. " in text
    content, own = (yaml.safe_load(path.read_text()) for path in (tmp_path / "new.yaml", FACTORIAL))
    for key in ("program", "project", "method", "metric", "command"):
        assert content[key] == own[key]


@pytest.mark.parametrize(("kind", "flags", "said"), [
    ("fraction", ["--from", "k=1"], "not used by fraction"),
    ("one_at_a_time", ["--from", "kk=1"], "'kk=1' must be FIELD=VALUE of k, concat_ratio, upsample, residual; did you mean k?"),
    ("one_at_a_time", ["--from", "k=7"], "factorial.yaml has k = 1, 2, 3"),
    ("leave_one_out", ["--from", "k=1 concat_ratio=0.25 upsample=nearest residual=true"], "no field can be reset"),
    ("one_at_a_time", ["--to", "none/new.yaml"], "must name a .yaml file in an existing folder"),
])  # fmt: skip
def test_a_wrong_flag_is_one_line(kind, flags, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["design", kind, str(FACTORIAL), *(["--to", "new.yaml"] if "--to" not in flags else []), *flags])
    err = capsys.readouterr().err
    assert stop.value.code == 2
    assert len(err.strip().splitlines()) == 1
    assert said in err
    assert not list(tmp_path.iterdir())


def test_an_existing_file_is_not_overwritten(tmp_path):
    written("fraction", tmp_path)
    before = (tmp_path / "new.yaml").read_text()
    with pytest.raises(UserError, match="already exists"):
        drafting.write("one_at_a_time", str(FACTORIAL), str(tmp_path / "new.yaml"))
    assert (tmp_path / "new.yaml").read_text() == before


@pytest.mark.parametrize(("name", "said"), [
    ("table2", "variant and study are not single fields"),
    ("contraction", "a design needs several fields; the file varies k"),
])  # fmt: skip
def test_a_base_without_fields_to_combine_is_an_error(name, said, tmp_path):
    with pytest.raises(UserError, match=said):
        drafting.write("fraction", str(ROOT / "sweeps" / f"{name}.yaml"), str(tmp_path / "new.yaml"))


def test_a_combination_that_cannot_be_a_run_is_an_error(tmp_path):
    base = tmp_path / "base.yaml"
    base.write_text(
        "method: grid\nparameters:"
        " {data: {value: digits}, net: {values: [hbonet, mobilenetv2]}, k: {values: [1, 2]}}\n"
    )
    with pytest.raises(UserError, match=r"net=mobilenetv2 k=2: not a valid run \(.*would change nothing"):
        drafting.write("one_at_a_time", str(base), str(tmp_path / "new.yaml"), "net=mobilenetv2")


# ------------------------------------------------------------ analysis of its rows


@pytest.fixture
def rows(tmp_path):
    """Made-up rows of the fraction: k = 2 adds 3 points, no residual costs 2, and seeds differ."""
    _sweep, runs, _ = written("fraction", tmp_path)
    draw, lines = np.random.default_rng(0), []
    row = study.read("contraction_uniform").done.to_dict("records")[0]
    for run in runs:
        top1 = 0.7 + 0.03 * (run.k == 2) - 0.02 * (not run.residual) + 0.01 * run.seed + draw.normal(0, 0.004)
        own = {name: getattr(run, name) for name in (*NAMES, "seed")}
        lines.append(row | own | {"top1": top1, "key": run.key(), "study": "new"})
    return pd.DataFrame(lines)


def test_an_analysis_of_variance_takes_main_effects_from_a_fraction(rows):
    """The squared deviations of the means, as in any balanced design; order 2 is an error, as its
    combinations were not run.
    """
    found = stats.effects(rows, list(NAMES), order=1).set_index("term")
    assert set(found.index) == {*NAMES, "seed"}
    for name in NAMES:
        means = rows.groupby(name)["top1"].mean()
        assert found.loc[name, "sum_sq"] == pytest.approx(
            len(rows) / len(means) * ((means - rows["top1"].mean()) ** 2).sum()
        )
    assert [term for term in found.index if term != "seed"][:2] == ["k", "residual"]  # sorted by their shares
    assert (found.loc[["k", "residual"], "p_holm"] < 1e-6).all()
    with pytest.raises(UserError, match="were not run"):
        stats.effects(rows, list(NAMES), order=2)


def test_the_page_of_a_fraction_reports_main_effects_only(rows):
    rows = rows.assign(arm=study.labels(rows))
    it = study.Study(
        ("new",),
        rows,
        pd.DataFrame(),
        rows["arm"].iloc[0],
        asked=question.parse({"versus": list(NAMES), "judge": "effects"}),
    )
    found = it.effects()
    assert found is not None
    assert set(found.frame["effect of"]) == {*NAMES, "seed"}
    assert "Only a fraction of the combinations was run" in found.notes[1]
    said = it.comparisons().set_index("label")
    assert said.loc["k=2 against k=1", "difference"] == pytest.approx(0.03, abs=0.003)
    assert said.loc["residual=False against residual=True", "verdict"] == "lower"
    assert said.loc["upsample=bilinear against upsample=nearest", "verdict"] == "undecided"
    # With a run missing, main effects are aliased.
    it.rows = rows[rows["arm"] != rows["arm"].iloc[0]]
    assert it.effects() is None
