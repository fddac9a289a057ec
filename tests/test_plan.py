"""The plan of a sweep: states, hours, and how runs share a machine."""

import json
from dataclasses import replace

import pytest
from conftest import ROOT, call
from test_sweep import TINY, write_fixture  # noqa: F401

from hbo import cost
from hbo.config import resolve
from hbo.errors import UserError
from hbo.nets import counting, size
from hbo.runs import cluster, lock, rows
from hbo.sweep import plan, timing
from hbo.sweep.__main__ import main
from hbo.sweep.study import read
from hbo.tasks import SETS
from hbo.tasks.build import network as build_net
from hbo.tasks.build import open_data


def test_status_names_runs_of_other_settings(write, tmp_path, capsys):
    """They were started with another `--set`; without it they are not in the list."""
    path, out = write(TINY), f"out={tmp_path / 'runs'}"
    for run in plan.entries(read(path, {"out": str(tmp_path / "runs"), "epochs": 1})):
        run.home.mkdir(parents=True)
        rows.write(run.home, {"state": "failed"})
    for sets, words in (
        ([], ["tiny has 4 runs that are not in this list; repeat the --set"]),
        (["--set", "epochs=1"], []),
    ):
        with pytest.raises(SystemExit):
            main(["status", str(path), "--set", out, *sets])
        last = capsys.readouterr().out.partition(" runs: ")[2].splitlines()[1:]
        assert len(last) == len(words)
        assert all(word in line for word, line in zip(words, last, strict=True))


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
    found = plan.entries(read(write(TINY), {"out": str(tmp_path), "threads": 2}))
    plan.price(found)
    line = plan.totals(found, 1, timing.estimate(found))
    busy = "; the load is 4.7 on 2 cores, so less is likely when it is idle, or with --threads 1)"
    assert line.endswith(busy) == said
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


def test_gpus_are_shared_out_in_groups(write, monkeypatch, tmp_path):
    from hbo.sweep.pool import places

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,5")
    runs = plan.entries(read(write(TINY), {"devices": 2, "out": str(tmp_path)}))
    assert places(runs, None) == [{"CUDA_VISIBLE_DEVICES": "0,1"}, {"CUDA_VISIBLE_DEVICES": "2,5"}]
    with pytest.raises(UserError, match="4 GPUs"):
        places(runs, 3)
    runs = plan.entries(read(write(TINY), {"accelerator": "cpu", "threads": 1, "out": str(tmp_path)}))
    assert places(runs, None) == [{"OMP_NUM_THREADS": "1"}] * cluster.cores()


def test_several_runs_share_a_gpu_where_that_is_asked_for(write, monkeypatch, tmp_path):
    from hbo.sweep.pool import places

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    runs = plan.entries(read(write(TINY), {"out": str(tmp_path)}))
    found = places(runs, None, 2)
    assert [place["CUDA_VISIBLE_DEVICES"] for place in found] == ["0", "3", "0", "3"]
    assert {place["HBO_RUNS_PER_DEVICE"] for place in found} == {"2"}
    assert [place["CUDA_VISIBLE_DEVICES"] for place in places(runs, 3, 2)] == ["0", "3", "0"]
    with pytest.raises(UserError, match="this machine has 2 GPUs; use --runs_per_device 3"):
        places(runs, 5, 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(UserError, match="use --workers N"):
        places(runs, None, 2)


def test_a_login_node_without_a_gpu_plans_for_runs_that_share_one(write, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(SystemExit) as stop:
        main(["plan", str(write(TINY)), "--set", f"out={tmp_path}", "--runs_per_device", "4"])
    said = capsys.readouterr()
    assert (stop.value.code, said.err) == (0, "")
    assert "left on one device (" in said.out


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
