"""hbo.bench: what is compared with what. No test asserts a time."""

import json
import statistics

import pandas as pd
import pytest
import torch
from conftest import ROOT, call
from quick import taken

from hbo import config, cost
from hbo.analysis import latency, results
from hbo.bench import infer, runtime_table, worker
from hbo.bench import train as bench
from hbo.deploy import deploy
from hbo.errors import UserError
from hbo.exporting import check
from hbo.kernels.norm import BatchNorm
from hbo.tasks import build

TINY = ("--data", "digits", "--batch", "4", "--width", "0.25", "--divisor", "8", "--threads", "1")


@pytest.mark.parametrize("divisor", [2, 8])
def test_mobilenetv2_has_the_same_multiply_adds(divisor):
    found, _ = bench.rivals(config.resolve(data="imagenet", width=0.25, divisor=divisor))
    macs = [cost.macs(build.network(found[name][0], 1000), 224) for name in ("channels_last", "mobilenetv2")]
    assert macs[1] == pytest.approx(macs[0], rel=0.03)


def test_plain_is_plain_and_mobilenetv2_takes_the_quick_batch_norm():
    found, _ = bench.rivals(config.resolve(data="imagenet"))
    assert next(iter(found)) == "nchw"
    assert not found["nchw"][0].channels_last
    net = build.network(found["mobilenetv2"][0], 10)
    assert all(isinstance(m, BatchNorm) for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d))


def test_the_rivals_without_a_quick_path_have_pytorch_s_own_modules():
    found, _ = bench.rivals(config.resolve(data="imagenet", k=2))
    x = torch.randn(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    left = {}
    for name in ("channels_last", "plain", "no_batch_norm", "no_depthwise"):
        rival = found[name]
        assert rival.kept
        assert rival.run.channels_last
        net = build.network(rival.run, 10)
        bench.use_pytorchs_own(net, rival.off)
        left[name] = set(taken(net.to(memory_format=torch.channels_last)(x)))
    assert left == {
        "channels_last": {"_Normalise", "_Depthwise5"},
        "plain": set(),
        "no_batch_norm": {"_Depthwise5"},
        "no_depthwise": {"_Normalise"},
    }
    net = build.network(found["plain"].run, 10)
    bench.use_pytorchs_own(net, found["plain"].off)
    assert {type(m).__module__.split(".")[0] for m in net.modules() if not list(m.children())} == {"torch"}


def test_every_rival_takes_every_turn(short):
    found = json.loads(call("hbo.bench", "train", *TINY, "--json")[0])
    assert found["baseline"] == "nchw"
    rivals = ("nchw", "channels_last", "plain", "no_batch_norm", "no_depthwise", "mobilenetv2")
    for of_each in ("images_per_second", "cpu_seconds_an_update"):
        assert {name: len(values) for name, values in found[of_each].items()} == dict.fromkeys(
            rivals, bench.TURNS
        )
    cpu = found["cpu_seconds_an_update"]
    for name, rival in {"all": "plain", "batch_norm": "no_batch_norm", "depthwise": "no_depthwise"}.items():
        assert found["worth"][name] == [a / b for a, b in zip(cpu[rival], cpu["channels_last"], strict=True)]
    assert set(found["ratio"]["nchw"]) == {1.0}
    assert all(size > 1e8 for size in found["peak_bytes"].values())  # torch alone takes this much


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_deployed_networks_take_every_turn_on_one_thread_and_on_two(monkeypatch, capsys, short):
    """In ONNX Runtime and one other runtime; the test below has all runtimes."""
    others = {python: names[-1:] for python, names in worker.environments().items()}
    monkeypatch.setattr(infer, "environments", lambda: others)
    monkeypatch.setattr(infer, "TURNS", 3)
    infer.main([*TINY, "--json"])
    found = json.loads(capsys.readouterr().out)
    rivals = {"plain", "deployed", "eager", "mobilenetv2_plain", "mobilenetv2_deployed"}
    for part in (found["threads"]["1"], found["threads"]["2"]):
        assert rivals <= part["ms"].keys()
        assert {len(ms) for ms in part["ms"].values()} == {infer.TURNS}
        assert set(part["speedup"]["plain"]) == {1.0}
        assert part["limit_ms"] == pytest.approx(found["macs"] / part["gemm_gmacs"] / 1e6)
    for runtime in (name for names in others.values() for name in names):
        assert found["runtimes"][f"{runtime}:deployed"]["difference"] <= check.TOLERANCE
        assert f"{runtime}:mobilenetv2_plain" in found["threads"]["2"]["ms"]
    lines = runtime_table.lines(found)
    assert {(line["runtime"], line["form"], line["threads"]) for line in lines} >= {
        ("onnx", "deployed", 1),
        ("onnx", "plain", 2),
    }
    assert all(len(line["turns"].split()) == infer.TURNS for line in lines)


def test_a_deployed_network_that_gives_other_logits_is_not_timed(monkeypatch, short):
    def wrong(net):
        net = deploy(net)
        net.classifier.bias += 1
        return net

    monkeypatch.setattr("hbo.deploy.deploy", wrong)
    monkeypatch.setattr(bench, "rivals", lambda run: ({}, {}))
    with pytest.raises(
        UserError,
        match=r"deployed: its logits differ from the plain export's by .* of the largest; nothing was timed",
    ):
        infer.infer(config.resolve(data="digits", width=0.1, threads=1))


@pytest.mark.slow
def test_the_latency_of_a_study_s_networks_is_joined_to_its_rows(tmp_path, short):
    call("hbo.bench", "infer", "--studies", "mobilenetv2", "--source", ROOT / "ablations", "--to", tmp_path)
    rows = latency.join(results.load(str(ROOT / "ablations"), "mobilenetv2"), tmp_path)
    assert rows["latency_ms"].gt(0).all()
    assert rows["latency_ms"].nunique() == rows[latency.NET].astype(str).drop_duplicates().shape[0]
    measured = results.read_csv(tmp_path / latency.FILE)
    assert all("deployed" in line["runtime"] and line["threads"] == 1 for line in measured)


def test_latencies_of_other_studies_are_not_dropped(tmp_path):
    (tmp_path / latency.FILE).write_bytes((ROOT / "ablations" / latency.FILE).read_bytes())
    with pytest.raises(UserError, match=r"has \d+ networks of other studies, and times of two calls"):
        infer.main(["--studies", "mobilenetv2", "--source", str(ROOT / "ablations"), "--to", str(tmp_path)])


def test_flags_that_a_measurement_of_studies_would_ignore_are_refused():
    with pytest.raises(UserError, match=r"k: the networks of contraction are in its rows"):
        infer.main(["--studies", "contraction", "--k", "2"])
    with pytest.raises(UserError, match=r"k: the networks are those of --trained"):
        infer.main(["--trained", "runs/default/KEY", "--k", "2"])
    with pytest.raises(UserError, match="--studies STUDY"):
        infer.main(["--to", "elsewhere"])
    with pytest.raises(UserError, match="--studies STUDY"):
        infer.main(["--from", "LOG", "--to", "elsewhere"])
    with pytest.raises(UserError, match="k: the networks are those of --from's log"):
        infer.main(["--from", "LOG", "--k", "2"])
    with pytest.raises(UserError, match="studies, trained: each is a measurement of its own"):
        infer.main(["--studies", "contraction", "--trained", "runs/default/KEY"])
    with pytest.raises(UserError, match="to=none: no such folder"):  # before minutes of measuring
        infer.main(["--studies", "contraction", "--to", "none"])


def test_a_table_of_latencies_from_elsewhere_is_one_line(tmp_path):
    (tmp_path / "latency.csv").write_text("net,ms\nhbonet,1\n")
    with pytest.raises(UserError, match=r"latency\.csv: has no column"):
        latency.join(results.load(ROOT / "ablations", "contraction"), tmp_path)


def test_a_switch_added_after_latencies_were_measured_had_its_default_then(tmp_path):
    rows = results.load(ROOT / "ablations", "contraction")
    expected = latency.join(rows, ROOT / "ablations")["latency_ms"]
    measured = pd.read_csv(ROOT / "ablations" / latency.FILE)
    measured.drop(columns="kernel").to_csv(tmp_path / latency.FILE, index=False)
    found = latency.join(rows, tmp_path)["latency_ms"]
    assert found.notna().any()
    pd.testing.assert_series_equal(found, expected)


def test_a_rival_that_cannot_exist_is_named():
    found, left_out = bench.rivals(config.resolve(data="imagenet", width=0.1))
    assert "mobilenetv2" not in found
    assert "within 3 %" in left_out["mobilenetv2"]


def test_an_error_says_what_cannot_be_measured(tmp_path):
    assert (
        "only=mobilenet: choose from nchw, channels_last"
        in call("hbo.bench", "train", *TINY, "--only", "mobilenet", expect=2)[1]
    )
    for what in ("train", "infer"):
        assert "task=reid: only classifiers" in call("hbo.bench", what, "--task", "reid", expect=2)[1]
    assert "turns=0" in call("hbo.bench", "train", *TINY, "--turns", "0", expect=2)[1]
    assert "did you mean train?" in call("hbo.bench", "trian", expect=2)[1]
    with pytest.raises(UserError, match=r"hbonet\.py; name a checkout"):
        bench.reference(config.resolve(data="imagenet"), tmp_path)
    (tmp_path / "models" / "imagenet").mkdir(parents=True)
    (tmp_path / "models" / "imagenet" / "hbonet.py").write_text("")
    with pytest.raises(UserError, match="every other switch as by default"):
        bench.reference(config.resolve(data="imagenet", residual=False), tmp_path)


@pytest.mark.parametrize(("rival", "line"), [
    ("channels_last", "`hbo.fit`'s default"),
    ("reference_kept", "the authors' definition with freed memory kept"),
    ("nchw", "the same network in NCHW order"),
    ("mobilenetv2", "mobilenetv2 at the same multiply-adds"),
])  # fmt: skip
def test_the_published_ratios_are_those_of_the_files(rival, line):
    """The table in ablations/bench and the sentence in docs/costs.md match the committed measurements."""
    folder = ROOT / "ablations" / "bench"
    told = []
    for k in (1, 2, 3):
        ratios = json.loads((folder / f"train_k{k}.json").read_text())["ratio"][rival]
        told.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    (row,) = [
        text for text in (folder / "README.md").read_text().splitlines() if text.startswith(f"| {line}")
    ]
    assert [cell.strip() for cell in row.split("|")[2:5]] == told
    if rival == "channels_last":
        assert f"{told[0]}, {told[1]} and {told[2]} times" in " ".join(
            (ROOT / "docs" / "costs.md").read_text().split()
        )


@pytest.mark.parametrize(
    ("path", "line"),
    [("batch_norm", "batch norm |"), ("depthwise", "5x5 depthwise gradients |"), ("all", "both |")],
)
def test_the_published_gains_of_the_quick_paths_are_those_of_the_files(path, line):
    """The table matches too; and each path saves at least a tenth at batch 32, or it would be deleted."""
    folder = ROOT / "ablations" / "bench"
    worth = [
        json.loads((folder / f"quick_batch{b}_k{k}.json").read_text())["worth"][path]
        for b in (32, 8)
        for k in (1, 3)
    ]
    (row,) = [
        text for text in (folder / "README.md").read_text().splitlines() if text.startswith(f"| {line}")
    ]
    assert [cell.strip() for cell in row.split("|")[2:6]] == [
        f"{statistics.median(w):.2f} ({min(w):.2f} to {max(w):.2f})" for w in worth
    ]
    assert all(statistics.median(w) >= 1.1 for w in worth[:2])


@pytest.mark.slow
def test_a_gpu_s_bench_in_miniature_measures_every_part(tmp_path, short):
    sizes = (
        "--widths",
        "0.1",
        "--batch",
        "4",
        "--resolution",
        "32",
        "--places",
        "1",
        "2",
        "--seconds",
        "0.01",
    )
    to = tmp_path / "gpu.json"
    parts = ("--only", "train", "places", "latency")
    said = call("hbo.bench", "gpu", "--accelerator", "cpu", *sizes, *parts, "--to", to)[0]
    found = json.loads(to.read_text())
    names = [row["name"] for row in found["train"]]
    assert len(names) == len(set(names)) == 10
    assert {row["precision"] for row in found["train"]} == {"fp32", "tf32", "bf16"}
    assert [row["processes"] for row in found["places"]] == [1, 2]
    assert {(row["net"], row["batch"]) for row in found["latency"]} == {
        (net, batch) for net in ("hbonet", "mobilenetv2") for batch in (1, 64)
    }
    assert list(found["left_out"]) == ["train: compiled"]
    assert all(name in said for name in names)
    # Alone and without the progress bar's thread, so that its runs can be forks.
    resume = ("--only", "resume", "--to", to)
    call("hbo.bench", "gpu", "--accelerator", "cpu", *resume, env={"TQDM_DISABLE": "1"})
    found = json.loads(to.read_text())
    assert {found["resume"][name] for name in ("run_again", "killed_and_resumed")} == {0.0}
    late = call("hbo.bench", "gpu", "--accelerator", "cpu", *sizes, "--minutes", "0", "--to", to)[0]
    assert "left out: resume: digits: 0 minutes were over" in late
    if not torch.cuda.is_available():
        assert "accelerator=gpu: there is no GPU here" in call("hbo.bench", "gpu", expect=2)[1]
    for flag, word in (("--places", "places=0"), ("--widths", "widths=0.0"), ("--batch", "batch=0")):
        assert word in call("hbo.bench", "gpu", "--accelerator", "cpu", flag, "0", expect=2)[1]
