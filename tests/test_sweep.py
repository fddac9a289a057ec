"""Sweep files: W&B's enumeration, one-line errors, and the plan."""

import json

import pytest
import yaml
from conftest import REFERENCE, ROOT, call

from hbo.config import resolve
from hbo.errors import UserError
from hbo.sweep import loading, plan, slurm, timing
from hbo.sweep.__main__ import main
from hbo.sweep.parameters import distribution, draw, grid
from hbo.sweep.study import read

ORACLE = json.loads((REFERENCE / "sweep_order.json").read_text())
TINY = {
    "method": "grid",
    "parameters": {"data": {"value": "digits"}, "k": {"values": [1, 2]}, "seed": {"values": [0, 1]}},
}


@pytest.fixture(name="write")
def write_fixture(tmp_path):
    def write(content, name="tiny.yaml"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return path

    return write


def parameters(given):
    """With explicit distributions, as when a file is read."""
    return {name: distribution(name, parameter) for name, parameter in given.items()}


@pytest.mark.parametrize("case", ORACLE["grid"], ids=lambda case: "-".join(case["parameters"]))
def test_a_grid_is_wandbs(case):
    assert grid(parameters(case["parameters"])) == case["rows"]


def test_random_draws_are_wandbs():
    (case,) = ORACLE["random"]
    found = draw(parameters(case["parameters"]), len(case["rows"]), case["seed"])
    for mine, theirs in zip(found, case["rows"], strict=True):
        assert mine.keys() == theirs.keys()
        for name, value in theirs.items():
            assert mine[name] == (pytest.approx(value, rel=1e-9) if isinstance(value, float) else value), name


def test_a_random_sweep_is_the_same_each_time_and_as_long_as_asked(write):
    content = {
        "method": "random",
        "run_cap": 5,
        "parameters": {"lr": {"min": 0.01, "max": 0.5}, "k": {"values": [1, 2, 3]}},
    }
    path = write(content)
    first = read(path).rows
    assert len(first) == 5
    assert read(path).rows == first
    assert read(path, seed=1).rows != first
    assert read(path, count=2).rows == first[:2]


WRONG = [
    ("method: grid\nparameters: {k: [1", "line 2: bad YAML"),
    ("- 1", "must be a mapping"),
    ({**TINY, "metod": "grid"}, "metod: no such key; did you mean method?"),
    ({**TINY, "method": "bayes"}, "use `wandb sweep`"),
    ({**TINY, "method": "gird"}, "method='gird'"),
    ({**TINY, "early_terminate": {"type": "hyperband"}}, "only W&B's server"),
    ({**TINY, "command": ["python", "train.py"]}, "command: must end with"),
    ({**TINY, "parameters": {"kk": {"value": 1}}}, "parameters.kk: no such field; did you mean k?"),
    ({**TINY, "parameters": {"k": 1}}, "parameters.k: must be {value: 1}"),
    ({**TINY, "parameters": {"k": [1, 2]}}, "parameters.k: must be {values: [1, 2]}"),
    ({**TINY, "parameters": {"k": {"vals": [1]}}}, "parameters.k.vals: no such key"),
    ({**TINY, "parameters": {"k": {"values": []}}}, "parameters.k.values"),
    (
        {**TINY, "parameters": {"seed": {"value": [0, 1]}}},
        "parameters.seed.value=[0, 1]: must be one value; write values",
    ),
    ({**TINY, "parameters": {"k": {"parameters": {"x": {"value": 1}}}}}, "fields are flat"),
    ({**TINY, "parameters": {"lr": {"min": 0.1, "max": 0.5}}}, "parameters.lr: a grid needs values"),
    ({**TINY, "parameters": {"lr": {"min": 0.1}}}, "parameters.lr: must have value"),
    ({**TINY, "parameters": {"k": {"values": [1, 9]}}}, "parameters.k=9"),
    ({**TINY, "parameters": {"upsample": {"value": "bilnear"}}}, "parameters.upsample='bilnear'"),
    ({**TINY, "parameters": {"concat_ratio": {"values": [0.5, 1.5]}}}, "parameters.concat_ratio=1.5"),
    ({**TINY, "parameters": {"k": {"value": 1, "values": [1]}}}, "parameters.k"),
    ({**TINY, "parameters": {"k": {"min": 2, "max": 2}}}, "min=2 must be below"),
    (
        {**TINY, "parameters": {"lr": {"distribution": "q_uniform", "min": 0, "max": 1, "q": 0}}},
        "parameters.lr.q=0",
    ),
    (
        {**TINY, "parameters": {"lr": {"distribution": "log_uniform_values", "min": 0, "max": 1}}},
        "parameters.lr.min=0",
    ),
    ({**TINY, "parameters": {"lr": {"distribution": "normal", "sigma": -1}}}, "parameters.lr.sigma=-1"),
    ({**TINY, "parameters": {"lr": {"distribution": "normal", "min": 0}}}, "parameters.lr.min"),
    ({**TINY, "parameters": {"k": {"values": [1, 2], "probabilities": [0.5, 0.4]}}}, "add up to 1"),
    ({"method": "random", "parameters": {"k": {"values": [1, 2]}}}, "--count"),
    ({**TINY, "run_cap": 0}, "run_cap=0"),
]


@pytest.mark.parametrize(("content", "word"), WRONG, ids=lambda v: v if isinstance(v, str) else "")
def test_a_wrong_file_is_one_line_that_names_it_and_the_key(write, content, word, capsys):
    path = write(content)
    with pytest.raises(SystemExit) as stop:
        main(["plan", str(path)])
    err = capsys.readouterr().err
    assert stop.value.code == 2
    assert len(err.strip().splitlines()) == 1
    assert str(path) in err
    assert word in err


@pytest.mark.parametrize(("argv", "word"), [
    (["--set", "kk=1"], "did you mean k?"),
    (["--set", "k"], "FIELD=VALUE"),
    (["--set", "k=[1"], "not a YAML value"),
    (["--devices_per_run", "2", "--set", "devices=1"], "give one of them"),
    (["--count", "2"], "--count 2: needs method: random"),
    (["--random_seed", "0"], "--random_seed 0: needs method: random"),
])  # fmt: skip
def test_a_wrong_flag_is_one_line(write, argv, word, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["plan", str(write(TINY)), *argv])
    err = capsys.readouterr().err
    assert stop.value.code == 2
    assert len(err.strip().splitlines()) == 1
    assert word in err


def test_a_wrong_verb_is_corrected(capsys):
    with pytest.raises(SystemExit):
        main(["rnu", "tiny.yaml"])
    assert capsys.readouterr().err.strip().endswith("; did you mean run?")


def test_a_missing_file_is_one_line(tmp_path):
    _, err = call("hbo.sweep", "plan", "none.yaml", expect=2, cwd=tmp_path)
    assert err == "error: none.yaml: No such file or directory\n"


def test_a_missing_file_names_the_one_beside_it(write):
    path = write(TINY, "mine.yaml")
    with pytest.raises(UserError, match=r"mine.yml: No such file or directory; did you mean mine.yaml\?$"):
        read(path.with_suffix(".yml"))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"upsample": ["nearest", "nearest"]}, "4 rows repeat another row's run (such as upsample=nearest)"),
        ({"k": [2, 2.0, 2], "seed": [0]}, "2 rows repeat another row's run (such as k=2)"),
        (
            {"k": [1], "seed": [3], "variant": ["width=0.5", "width=0.5 residual=true"]},
            "1 row repeats another row's run (such as variant=width=0.5 residual=true), and is left out",
        ),
        ({}, ""),
    ],
)
def test_rows_that_are_one_run_are_counted(write, tmp_path, capsys, values, said):
    """The rows that the lists have are those of the plan and those of the note."""
    sets = [f"--set={name}={json.dumps(value)}" for name, value in (values | {"out": str(tmp_path)}).items()]
    with pytest.raises(SystemExit):
        main(["run", str(write(TINY)), *sets, "--slurm", "nonsense"])  # ends before a run starts
    err = capsys.readouterr().err
    assert ("note: " in err) == bool(said)
    assert said in err


def test_a_cap_that_repeated_values_do_not_touch_leaves_nothing_out(write):
    path = write(TINY | {"run_cap": 2})
    assert read(path, {"seed": [0, 0, 1]}).twice[0] == 0
    assert read(path, {"seed": [0, 0], "k": [1]}).twice == (1, "seed=0")


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (
            {"upsample": "nearest,bilinear"},
            "pixelshuffle; for several values write upsample=[nearest,bilinear]",
        ),
        (
            {"k": "1, 2"},
            "must be a whole number; for several values write k=[1,2] (in a file values: [1, 2])",
        ),
        ({"upsample": "nearest,bilinea"}, "did you mean nearest?"),
        ({"k": "1,x"}, "k='1,x': must be a whole number"),
    ],
)
def test_several_values_in_one_text_are_told_from_a_typo(write, sets, said):
    with pytest.raises(UserError) as error:
        read(write(TINY), sets)
    assert str(error.value).endswith(said) or f"{said} (in a file" in str(error.value)
    assert ("for several" in str(error.value)) == ("for several" in said)
    assert ("did you mean" in str(error.value)) == ("did you mean" in said)


def test_a_list_without_its_brackets(write):
    text = "method: grid\nparameters:\n  upsample: {values: nearest, bilinear, transposed}\n"
    with pytest.raises(UserError, match=r"no such key; write values: \[nearest, bilinear, transposed\]$"):
        read(write(text))
    with pytest.raises(UserError, match=r"k.value_: no such key; did you mean value\?$"):
        read(write("method: grid\nparameters:\n  k: {value_: 1, value: 2}\n"))


def test_set_replaces_and_sweeps_and_text_is_a_number_where_the_field_is(write):
    path = write({**TINY, "parameters": {**TINY["parameters"], "lr": {"value": "1e-3"}}})
    rows_ = read(path, {"seed": [5, 6, 7], "data": "fake"}).rows
    assert sorted((row["k"], row["seed"]) for row in rows_) == [(k, s) for k in (1, 2) for s in (5, 6, 7)]
    assert {row["data"] for row in rows_} == {"fake"}
    assert {resolve(**row).lr for row in rows_} == {1e-3}


def test_a_combination_that_cannot_be_is_a_row_of_its_own(write, tmp_path):
    path = write({"method": "grid", "parameters": {"net": {"values": ["hbonet", "mobilenetv2"]}, "k": {"values": [1, 2]}, "out": {"value": str(tmp_path)}}})  # fmt: skip
    found = plan.entries(read(path))
    invalid = [entry for entry in found if entry.state == "invalid"]
    assert [(entry.fields["net"], entry.fields["k"]) for entry in invalid] == [("mobilenetv2", 2)]
    assert "would change nothing" in invalid[0].error
    assert [entry.state for entry in found].count("missing") == 3


@pytest.mark.parametrize(
    ("text", "minutes"), [("90", 90), ("30:30", 31), ("24:00:00", 1440), ("1-0", 1440), ("2-03:04:05", 3065)]
)
def test_slurms_times(text, minutes):
    assert slurm.parse(f"partition=gpu,gpus=2,time={text}") == {
        "partition": "gpu",
        "gpus": 2,
        "time": minutes,
    }


@pytest.mark.parametrize("text", ["time=1:2:3:4", "time=soon", "gpus=0", "partion=x", "partition"])
def test_a_wrong_slurm_key_or_value_is_refused(text):
    with pytest.raises(UserError, match="--slurm"):
        slurm.parse(text)


@pytest.mark.slow
def test_rows_are_judged_by_what_their_own_file_asked(tmp_path):
    """The sweep file may be anywhere: `run` stores its question with the rows."""
    parameters = {
        name: {"value": value}
        for name, value in {
            "data": "digits",
            "width": 0.1,
            "epochs": 1,
            "limit_batches": 1,
            "threads": 1,
        }.items()
    }
    content = {
        "method": "grid",
        "primary": {"versus": "k=2 against k=1", "margin": 7.0},
        "parameters": parameters | {"k": {"values": [1, 2]}, "seed": {"values": [0, 1]}},
    }
    (tmp_path / "mine.yaml").write_text("# Are two better than one?\n" + yaml.safe_dump(content))
    call("hbo.sweep", "run", "mine.yaml", cwd=tmp_path)
    (tmp_path / "mine.yaml").unlink()
    out, _ = call("hbo.analysis.study", "runs/mine", cwd=tmp_path)
    assert out.startswith("Are two better than one?\n")
    assert "k=2 against" in out
    assert "within 7 points" in out
    (tmp_path / "runs" / "mine" / "question.json").write_text("{")
    _, err = call("hbo.analysis.study", "runs/mine", cwd=tmp_path, expect=2)
    assert "question.json: not a question" in err


@pytest.mark.parametrize(
    ("name", "values"),
    [("threads", [1, 2]), ("workers", [0, 2]), ("accelerator", ["cpu", "auto"]), ("study", ["a", "b"]), ("out", ["x", "y"])],
)  # fmt: skip
def test_what_no_key_holds_is_not_swept_over(write, name, values, capsys):
    """Half of the rows would be dropped silently."""
    with pytest.raises(SystemExit) as stop:
        main(["plan", str(write(TINY)), "--set", f"{name}={json.dumps(values)}"])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert f"parameters.{name}: {values[0]} and {values[1]} are the same run" in said
    assert f"--set {name}={values[1]} --set out=" in said


def test_what_is_said_twice_in_other_words_is_one_run(write, tmp_path):
    """A table's row given twice, by its width and by name, is not an error."""
    path = write({"method": "grid", "parameters": {"variant": {"values": ["width=0.5", "width=0.5 k=1"]}, "data": {"value": "digits"}}})  # fmt: skip
    assert len(plan.entries(read(path, {"out": str(tmp_path)}))) == 1


def test_one_impossible_draw_is_that_rows_fault_alone(write, tmp_path):
    """A warm-up must be shorter than the 20 epochs; a listed value that makes every row invalid is still an
    error of the file.
    """
    drawn = {"method": "random", "run_cap": 12, "parameters": {"data": {"value": "digits"}, "epochs": {"value": 20}, "warmup": {"min": 0.0, "max": 40.0}, "out": {"value": str(tmp_path)}}}  # fmt: skip
    found = plan.entries(read(write(drawn)))
    invalid = [entry for entry in found if entry.state == "invalid"]
    assert {entry.fields["warmup"] >= 20 for entry in invalid} == {True}
    assert 0 < len(invalid) < 12 == len(found)
    assert all("must be shorter than the 20 epochs" in entry.error for entry in invalid)
    none = {**drawn, "parameters": {**drawn["parameters"], "warmup": {"min": 30.0, "max": 40.0}}}
    with pytest.raises(UserError, match=r"parameters\.warmup=3"):
        plan.entries(read(write(none)))
    listed = {
        **drawn,
        "parameters": {**drawn["parameters"], "warmup": {"value": 0.0}, "k": {"values": [1, 9]}},
    }
    with pytest.raises(UserError, match=r"parameters\.k=9"):
        plan.entries(read(write(listed)))


def test_a_number_that_yaml_leaves_as_text_reaches_as_a_number(write):
    text = "method: grid\nparameters:\n  lr: {values: [1e-2, 0.01, 1e-3]}\n  k: {value: 1}\n"
    assert [row["lr"] for row in read(write(text)).rows] == [0.01, 0.001]
    assert [row["lr"] for row in read(write(text), {"lr": ["1e-4"]}).rows] == [1e-4]
    assert read(write(text)).texts == ("lr: 1e-2", "lr: 1e-3")
    assert read(write(text.replace("1e-", "1.0e-"))).texts == ()
    with pytest.raises(UserError, match="line 4: bad YAML, 'lr' is repeated"):
        read(write(text.replace("k: {value: 1}", "lr: {value: 1}")))


def test_our_own_files_have_numbers_as_numbers():
    """`wandb sweep` takes each as it stands."""
    assert {text for path in (ROOT / "sweeps").glob("*.yaml") for text in read(path).texts} == set()


def test_a_plan_names_what_wandb_would_take_for_text(write, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(timing, "estimate", lambda *_: "not timed")
    monkeypatch.setattr(loading, "bottleneck", lambda _: "")
    text = "method: grid\nparameters:\n  data: {value: digits}\n  residual: {value: 'true'}\n  lr: {min: 1e-3, max: 0.1}\n"
    path = write(text.replace("grid", "random\nrun_cap: 1"))
    with pytest.raises(SystemExit) as stop:
        main(["plan", str(path), "--set", f"out={tmp_path}", "--workers", "1"])
    assert stop.value.code == 0
    assert "W&B reads residual: true, lr: 1e-3 as text; write 0.01 or 1.0e-2" in capsys.readouterr().out
