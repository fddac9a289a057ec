"""Sweep files: W&B's enumeration, one-line errors, and the plan."""

import json
from dataclasses import replace

import pytest
import yaml
from conftest import REFERENCE, ROOT, call

from hbo import cost
from hbo.config import resolve
from hbo.errors import UserError
from hbo.nets import counting, size
from hbo.runs import cluster, lock, rows
from hbo.sweep import loading, plan, slurm, timing
from hbo.sweep.__main__ import main
from hbo.sweep.parameters import distribution, draw, grid
from hbo.sweep.study import read
from hbo.tasks import SETS
from hbo.tasks.build import network as build_net
from hbo.tasks.build import open_data

ORACLE = json.loads((REFERENCE / "sweep_order.json").read_text())
TINY = {
    "method": "grid",
    "parameters": {"data": {"value": "digits"}, "k": {"values": [1, 2]}, "seed": {"values": [0, 1]}},
}


@pytest.fixture
def write(tmp_path):
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
    (["--set", "k=[1"], "no YAML"),
    (["--devices_per_run", "2", "--set", "devices=1"], "give one of them"),
    (["--count", "2"], "--count 2: is of method: random"),
    (["--random_seed", "0"], "--random_seed 0: is of method: random"),
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


def test_status_names_runs_of_other_settings(write, tmp_path, capsys):
    """They were started with another `--set`: without it the list has none of them."""
    path, out = write(TINY), f"out={tmp_path / 'runs'}"
    for run in plan.entries(read(path, {"out": str(tmp_path / "runs"), "epochs": 1})):
        run.home.mkdir(parents=True)
        rows.write(run.home, {"state": "failed"})
    for sets, words in (
        ([], ["tiny has 4 runs that are not of this list; repeat the --set"]),
        (["--set", "epochs=1"], []),
    ):
        with pytest.raises(SystemExit):
            main(["status", str(path), "--set", out, *sets])
        last = capsys.readouterr().out.partition(" runs: ")[2].splitlines()[1:]
        assert len(last) == len(words)
        assert all(word in line for word, line in zip(words, last, strict=True))


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


def test_states_are_what_the_folders_say(write, tmp_path, capsys):
    study = read(write(TINY), {"out": str(tmp_path / "runs"), "k": [0, 1, 2, 3], "seed": [0, 1]})
    done, other, failed, unfinished, running, dead, stopped, *missing = (resolve(**row) for row in study.rows)
    for run, state in (
        (done, "done"),
        (failed, "failed"),
        (unfinished, "interrupted"),
        (running, "unfinished"),
        (dead, "unfinished"),
        (stopped, "stopped"),
    ):
        rows.folder(run).mkdir(parents=True)
        rows.write(rows.folder(run), {"state": state, "seconds": 7.0, "top1": 0.5, "error": "the loss"})
    there = tmp_path / "runs" / "another" / other.key()
    there.mkdir(parents=True)
    rows.write(there, {"state": "done", "seconds": 9.0, "top1": 0.5})
    (rows.folder(running) / "lock.0").write_text(
        json.dumps({**lock.me(), "step": 3, "of": 4, "seconds": 30.0})
    )
    (rows.folder(dead) / "lock.0").write_text(
        json.dumps({**lock.me(), "began": "long ago", "step": 3, "of": 4})
    )
    found = plan.entries(study)
    said = [plan.describe(entry) for entry in found]
    (entry,) = [entry for entry in found if entry.state == "stopped"]
    assert said == ["done", "done in another", "failed: the loss", "interrupted", "running 75 %, 10 s left", "unfinished", "stopped in W&B at update 0 of 0", *["missing"] * len(missing)]  # fmt: skip
    for at, steps, words in (
        (30, 21, f"30 of {21 * stopped.epochs}"),
        ("x", None, "0 of 0"),
        ({}, [1], "0 of 0"),
    ):
        rows.write(rows.folder(stopped), {"state": "stopped", "stopped_at": at, "steps_per_epoch": steps})
        plan.refresh(entry)
        assert plan.describe(entry) == f"stopped in W&B at update {words}"
    capsys.readouterr()
    plan.say_stopped(found)  # what `run` says instead of starting it
    assert "python -m hbo.fit --config" in capsys.readouterr().out


def test_json_is_json_alone_and_complete(write, tmp_path):
    out, _ = call("hbo.sweep", "plan", write(TINY), "--set", f"out={tmp_path}", "--json")
    found = json.loads(out)
    assert [(entry["k"], entry["seed"]) for entry in found] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    for entry in found:
        run = resolve(data="digits", k=entry["k"], seed=entry["seed"])
        assert entry["key"] == run.key()
        whole = cost.count(build_net(run, 10), run.resolution)["total"]
        assert (entry["macs"], entry["params"]) == (whole.macs, whole.params)
        assert entry["state"] == "missing"
        assert entry["seconds"] > 0
        assert not entry["measured"]


def test_a_thousand_rows_cost_what_their_networks_cost(tmp_path, monkeypatch):
    """The factorial's 54 networks with 19 seeds: each row is resolved once, and no block is built and counted
    again for a second seed.
    """
    done = {"rows": 0, "blocks": 0}

    def counted(name, function):
        def once(*args, **given):
            done[name] += 1
            return function(*args, **given)

        return once

    monkeypatch.setattr("hbo.sweep.study.resolve", counted("rows", resolve))
    monkeypatch.setattr("hbo.nets.counting.pass_through", counted("blocks", counting.pass_through))

    def work(seeds: int) -> tuple[int, int]:
        for known in (size.total, size._stem, size._block, size._head):
            known.cache_clear()
        done.update(rows=0, blocks=0)
        study = read(ROOT / "sweeps" / "factorial.yaml", {"seed": list(range(seeds)), "out": str(tmp_path)})
        planned = plan.entries(study)
        plan.price(planned)
        assert "1026 runs" in plan.totals(planned, 1, "") or seeds == 1
        return done["rows"], done["blocks"]

    (rows_of_one, blocks), rows_of_all = work(1), work(19)
    assert rows_of_one == 54
    assert rows_of_all == (54 * 19, blocks)
    assert blocks < 54 * 10  # the 54 networks of 17 blocks each share most of them


def measured(run, seconds: float) -> dict:
    """The row of a run that took so long on this machine."""
    machine = {"threads": 2, "accelerator": "auto", "devices": 1, "num_nodes": 1, "data_dir": None}
    found = {
        "state": "done",
        "machine": rows.machine(),
        "images_per_second": 10.0,
        "seconds": seconds,
        "top1": 0.5,
    }
    return rows.keyed(run) | machine | found


def test_rows_of_this_machine_are_better_than_a_calibration(write, tmp_path):
    study = read(write(TINY), {"out": str(tmp_path), "k": [1], "seed": [0, 1]})
    first, second = (resolve(**row) for row in study.rows)
    rows.folder(first).mkdir(parents=True)
    row = measured(first, 77.0)
    rows.write(rows.folder(first), row)
    found = plan.entries(study)
    plan.price(found)
    said = timing.estimate(found)
    assert "rows of this machine" in said
    assert "calibration" not in said
    assert [entry.seconds for entry in found] == [77.0, 77.0 + timing.START]
    rows.write(rows.folder(first), row | {"machine": "another"})
    found = plan.entries(study)
    plan.price(found)
    assert "calibration" in timing.estimate(found)
    assert second.key() == found[1].key


def test_rows_with_other_threads_are_named(write, tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "calibrate", lambda run: 1e-3)
    monkeypatch.setattr(timing.os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    study = read(write(TINY), {"out": str(tmp_path), "k": [1], "seed": [0, 1], "threads": 2})
    other = replace(resolve(**study.rows[0]), threads=1)
    rows.folder(other).mkdir(parents=True)
    rows.write(rows.folder(other), measured(other, 77.0) | {"threads": 1})

    def said(study):
        found = plan.entries(study)[1:]
        plan.price(found)
        return timing.estimate(found)

    assert said(study).endswith("rows here have threads=1: add --set threads=1 to use their times")
    assert "threads" not in said(replace(study, rows=[row | {"batch": 7} for row in study.rows]))
    assert said(replace(study, rows=[row | {"threads": 1} for row in study.rows])).endswith("of this machine")


@pytest.mark.parametrize(
    ("load", "accelerator", "said"), [(4.7, "cpu", True), (1.9, "cpu", False), (4.7, "gpu", False)]
)
def test_a_calibration_says_that_the_machine_is_busy(write, tmp_path, monkeypatch, load, accelerator, said):
    monkeypatch.setattr(timing, "calibrate", lambda run: 1e-3)
    monkeypatch.setattr(timing.torch.cuda, "is_available", lambda: accelerator == "gpu")
    monkeypatch.setattr(timing.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(timing.os, "getloadavg", lambda: (load, 0.0, 0.0))
    found = plan.entries(read(write(TINY), {"out": str(tmp_path)}))
    plan.price(found)
    line = plan.totals(found, 1, timing.estimate(found))
    assert line.endswith("; the load is 4.7 on 2 cores, so less is likely when it is idle)") == said
    assert said or "load" not in line


def test_each_network_is_timed_by_itself_and_a_costly_one_is_scaled(write, tmp_path, monkeypatch):
    """A network that writes fewer numbers may take longer; once the time budget is spent, the nearest
    network's time is scaled.
    """
    seconds = {"hbonet": 3e-3, "mobilenetv2": 1e-3}
    monkeypatch.setattr(timing, "calibrate", lambda run: seconds[run.net])
    found = plan.entries(read(write(TINY), {"out": str(tmp_path), "k": [1], "seed": [0], "net": [*seconds]}))
    plan.price(found)
    said = timing.estimate(found)
    assert "calibration" in said
    assert "scaled" not in said
    one, other = (entry.seconds - timing.START for entry in found)
    assert one == pytest.approx(3 * other)
    monkeypatch.setattr(timing, "BUDGET", 0.0)
    assert "scaled" in timing.estimate(found)
    one, other = (entry.seconds - timing.START for entry in found)
    assert one / other == pytest.approx(found[0].written / found[1].written)


def test_a_row_of_the_same_network_says_more_than_one_of_another(write, tmp_path):
    sweep = read(
        write(TINY),
        {"out": str(tmp_path), "k": [1], "seed": [0], "width": [0.1, 0.25], "net": ["hbonet", "mobilenetv2"]},
    )
    runs = [run for run in (resolve(**row) for row in sweep.rows) if run.width == 0.1]
    for run, speed in zip(runs, (10.0, 30.0), strict=True):
        rows.folder(run).mkdir(parents=True)
        sizes = {"activation_bytes": 400_000, "elementwise": 1000, "images_per_second": speed}
        rows.write(rows.folder(run), measured(run, 60.0) | sizes)
    found = plan.entries(sweep)
    plan.price(found)
    assert "scaled" in timing.estimate(found)
    pace = {
        entry.run.net: (entry.seconds - timing.START) / entry.written
        for entry in found
        if entry.run.width == 0.25
    }
    assert pace["hbonet"] == pytest.approx(3 * pace["mobilenetv2"])


@pytest.mark.parametrize("data", ["elpv", "digits", "fake"])
def test_sizes_are_the_data_sets(data):
    opened = open_data(resolve(data=data))
    assert SETS[data].images == (len(opened.train), len(opened.val))


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


def test_gpus_are_shared_out_in_groups(write, monkeypatch, tmp_path):
    from hbo.sweep.pool import places

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,5")
    runs = plan.entries(read(write(TINY), {"devices": 2, "out": str(tmp_path)}))
    assert places(runs, None) == [{"CUDA_VISIBLE_DEVICES": "0,1"}, {"CUDA_VISIBLE_DEVICES": "2,5"}]
    with pytest.raises(UserError, match="4 GPUs"):
        places(runs, 3)
    runs = plan.entries(read(write(TINY), {"accelerator": "cpu", "threads": 1, "out": str(tmp_path)}))
    assert places(runs, None) == [{"OMP_NUM_THREADS": "1"}] * cluster.cores()


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
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    call("hbo.sweep", "run", "mine.yaml", cwd=tmp_path)
    out, _ = call("hbo.analysis.study", "runs/mine", cwd=tmp_path)
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
    assert f"parameters.{name}: {values[0]} and {values[1]} are one run" in said
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
    assert "W&B takes residual: true, lr: 1e-3 for text; write 0.01 or 1.0e-2" in capsys.readouterr().out


def test_several_runs_share_a_gpu_where_that_is_asked_for(write, monkeypatch, tmp_path):
    from hbo.sweep.pool import places

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    runs = plan.entries(read(write(TINY), {"out": str(tmp_path)}))
    found = places(runs, None, 2)
    assert [place["CUDA_VISIBLE_DEVICES"] for place in found] == ["0", "3", "0", "3"]
    assert {place["HBO_RUNS_PER_DEVICE"] for place in found} == {"2"}
    assert [place["CUDA_VISIBLE_DEVICES"] for place in places(runs, 3, 2)] == ["0", "3", "0"]
    with pytest.raises(UserError, match="this machine has 2 GPUs; take --runs_per_device 3"):
        places(runs, 5, 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(UserError, match="take --workers N"):
        places(runs, None, 2)


def test_a_plan_divides_its_hours_by_what_rows_of_as_many_a_device_took(write, tmp_path):
    """Four runs that share a device took 100 s each, where one alone takes 60 s: 4 runs take 100 s, not 60 s
    or 240 s.
    """
    study = read(write(TINY), {"out": str(tmp_path), "k": [1], "seed": [0, 1, 2, 3, 4]})
    run = resolve(**study.rows[0])
    row = measured(run, 60.0)
    rows.folder(run).mkdir(parents=True)
    rows.write(rows.folder(run), row)

    def said(together: int) -> str:
        found = plan.entries(study)
        plan.price(found)
        return plan.totals(found, 1, timing.estimate(found, together))

    alone = said(4)
    assert "5 min left on one device" in alone  # 4 x (60 + 10) s
    assert "no row was measured with 4 runs on a device" in alone
    other = tmp_path / "other" / "0123456789"
    other.mkdir(parents=True)
    (other / "row.json").write_text(json.dumps(row | {"runs_per_device": 4, "seconds": 100.0}))
    assert "110 s" in said(4).replace("2 min left", "110 s")
    assert "measured with as many runs on a device" in said(4)
    assert said(1) == alone.replace("; " + timing.ALONE.format(4), "").replace(
        timing.ALONE.format(4) + "; ", ""
    )
