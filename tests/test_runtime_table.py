"""The table of hbo.bench infer: every network has its own line, and the committed one is that of its turns."""

import statistics

import pytest
from conftest import ROOT

from hbo.analysis import results
from hbo.bench import infer, runtime_table
from hbo.deploy.runtimes import RUNTIMES
from hbo.errors import UserError

BENCH = ROOT / "ablations" / "bench"
FLOAT = ("plain", "deployed")


def test_a_table_names_networks_by_what_distinguishes_them():
    networks = ["hbonet, width 0.25, k=1, scheme=release", "hbonet, width 0.25, k=2, scheme=release"]
    assert runtime_table.short([*networks, "mobilenetv2, width 0.3"]) == {
        networks[0]: "hbonet k=1",
        networks[1]: "hbonet k=2",
        "mobilenetv2, width 0.3": "mobilenetv2",
    }


@pytest.mark.parametrize("file", sorted(BENCH.glob("runtimes_*.csv")), ids=lambda f: f.stem)
def test_a_committed_table_is_that_of_its_turns(file):
    lines = results.read_csv(file)
    for line in lines:
        turns = sorted(map(float, line["turns"].split()))
        assert line["latency_ms"] == pytest.approx(statistics.median(turns), rel=1e-3)
    assert file.with_suffix(".md").read_text() == runtime_table.markdown(lines)


@pytest.mark.parametrize("key", [["abc", "def"], [None, None]])
def test_two_trainings_of_a_network_have_a_line_each(key):
    """Two seeds have the same description; two released files have no key either."""
    lines = [
        line | {"key": one, "latency_ms": 1000.0 + i}
        for i, one in enumerate(key)
        for line in results.read_csv(BENCH / "runtimes_k1.csv")[:1]
    ]
    shown = runtime_table.markdown(lines)
    assert "1000.00" in shown
    assert "1001.00" in shown


def test_the_table_is_not_written_over_its_own_csv(tmp_path):
    with pytest.raises(UserError, match=r"must end in \.csv"):
        infer.main(["--csv", str(tmp_path / "turns.md")])


@pytest.mark.parametrize("k", [1, 2, 3])
def test_what_is_said_of_the_goals_is_measured(k):
    """Medians on one thread, in k's column; a goal that is reached must be called so."""
    ms = {
        (line["runtime"], line["network"].split(",")[0], line["form"]): line["latency_ms"]
        for line in results.read_csv(BENCH / f"runtimes_k{k}.csv")
        if line["threads"] == 1
    }
    over = lambda runtime, form: ms[runtime, "hbonet", form] / ms[runtime, "mobilenetv2", form]
    floats = lambda net, *of: min(
        ms[key] for key in ms if key[1:] in [(net, f) for f in FLOAT] and key[0] in of
    )
    told = (BENCH / "README.md").read_text().split("| goal |")[1].splitlines()[2:7]
    vino, pieces, xnnpack, int8, within = (line.split("|")[1 + k].strip() for line in told)
    best = floats("hbonet", "openvino") / floats("mobilenetv2", "openvino")
    assert vino == f"{over('openvino', 'plain'):.2f}; {over('openvino', 'deployed'):.2f}; {best:.2f}"
    assert xnnpack == (
        f"ExecuTorch {over('executorch', 'deployed'):.2f}, LiteRT {over('litert', 'deployed'):.2f}"
    )
    fastest, eight = floats("hbonet", *RUNTIMES), ms["openvino", "hbonet", "int8"]
    assert fastest == ms["onnx", "hbonet", "deployed"]
    assert eight == min(ms[key] for key in ms if key[1:] == ("hbonet", "int8"))
    assert int8 == f"{fastest:.2f}; {eight:.2f}; {fastest / eight:.2f} times"
    assert within == f"{floats('hbonet', 'openvino') / eight:.2f} times"
    assert pieces == "ExecuTorch 1, LiteRT 1"
    assert best > 1.1
    assert min(over("executorch", "deployed"), over("litert", "deployed")) > 1.2
    assert fastest / eight < 1.3
