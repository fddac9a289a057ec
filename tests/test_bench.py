"""hbo.bench: what stands beside what. No test asserts a time."""

import json
import statistics

import pytest
import torch
from conftest import ROOT, call
from quick import taken

from hbo import config, cost
from hbo.analysis import latency, results
from hbo.bench import infer
from hbo.bench import train as bench
from hbo.deploy import deploy
from hbo.errors import UserError
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


def test_every_rival_takes_every_turn():
    found = json.loads(call("hbo.bench", "train", *TINY, "--json")[0])
    assert found["baseline"] == "nchw"
    rivals = ("nchw", "channels_last", "plain", "no_batch_norm", "no_depthwise", "mobilenetv2")
    for of_each in ("images_per_second", "cpu_seconds_an_update"):
        assert {name: len(values) for name, values in found[of_each].items()} == dict.fromkeys(rivals, bench.TURNS)
    cpu = found["cpu_seconds_an_update"]
    for name, rival in {"all": "plain", "batch_norm": "no_batch_norm", "depthwise": "no_depthwise"}.items():
        assert found["worth"][name] == [a / b for a, b in zip(cpu[rival], cpu["channels_last"], strict=True)]
    assert set(found["ratio"]["nchw"]) == {1.0}
    assert all(size > 1e8 for size in found["peak_bytes"].values())  # torch alone takes as much


@pytest.mark.slow
def test_deployed_networks_take_every_turn_on_one_thread_and_on_two():
    found = json.loads(call("hbo.bench", "infer", *TINY, "--json")[0])
    rivals = {"plain", "deployed", "int8", "eager", "mobilenetv2_plain", "mobilenetv2_deployed"}
    for part in (found["threads"]["1"], found["threads"]["2"]):
        assert {name: len(ms) for name, ms in part["ms"].items()} == dict.fromkeys(rivals, infer.TURNS)
        assert set(part["speedup"]["plain"]) == {1.0}
        assert part["limit_ms"] == pytest.approx(found["macs"] / part["gemm_gmacs"] / 1e6)
    assert found["bytes"]["int8"] < 0.7 * found["bytes"]["deployed"]


def test_a_deployed_network_that_gives_other_logits_is_not_timed(monkeypatch):
    def wrong(net):
        net = deploy(net)
        net.classifier.bias += 1
        return net

    monkeypatch.setattr("hbo.deploy.deploy", wrong)
    with pytest.raises(UserError, match=r"deployed: its logits are .* off those of the plain export; nothing was timed"):
        infer.infer(config.resolve(data="digits", width=0.1, threads=1))


@pytest.mark.slow
def test_the_latency_of_a_study_s_networks_is_joined_to_its_rows(tmp_path):
    call("hbo.bench", "infer", "--studies", "mobilenetv2", "--source", ROOT / "ablations", "--to", tmp_path)
    rows = latency.join(results.load(str(ROOT / "ablations"), "mobilenetv2"), tmp_path)
    assert rows["latency_ms"].gt(0).all()
    assert rows["latency_ms"].nunique() == rows[latency.NET].astype(str).drop_duplicates().shape[0]
    measured = results.read_csv(tmp_path / latency.FILE)
    assert all("deployed" in line["runtime"] and line["threads"] == 1 for line in measured)


def test_flags_that_a_measurement_of_studies_would_ignore_are_refused():
    with pytest.raises(UserError, match=r"k: the networks of contraction are in its rows"):
        infer.main(["--studies", "contraction", "--k", "2"])
    with pytest.raises(UserError, match="--studies STUDY"):
        infer.main(["--to", "elsewhere"])


def test_a_rival_that_there_cannot_be_is_named():
    found, left_out = bench.rivals(config.resolve(data="imagenet", width=0.1))
    assert "mobilenetv2" not in found
    assert "within 3 %" in left_out["mobilenetv2"]


def test_what_cannot_be_measured_is_said(tmp_path):
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
def test_the_ratios_that_are_told_are_those_of_the_files(rival, line):
    """The table of ablations/bench, and the main README's sentence, against the turns that are committed."""
    folder = ROOT / "ablations" / "bench"
    told = []
    for k in (1, 2, 3):
        ratios = json.loads((folder / f"train_k{k}.json").read_text())["ratio"][rival]
        told.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    (row,) = [text for text in (folder / "README.md").read_text().splitlines() if text.startswith(f"| {line}")]
    assert [cell.strip() for cell in row.split("|")[2:5]] == told
    if rival == "channels_last":
        assert f"{told[0]}, {told[1]} and {told[2]} times" in " ".join((ROOT / "README.md").read_text().split())
