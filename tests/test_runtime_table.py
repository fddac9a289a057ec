"""The table of hbo.bench infer: every network has its own line, and the committed one is that of its turns."""

import statistics

import pytest
from conftest import ROOT

from hbo.analysis import results
from hbo.bench import infer, runtime_table
from hbo.errors import UserError

BENCH = ROOT / "ablations" / "bench"


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


def test_what_is_said_of_the_goals_is_measured():
    """Medians on one thread, k = 1; a goal that is reached must be called so."""
    ms = {
        (line["runtime"], line["network"].split(",")[0], line["form"]): line["latency_ms"]
        for line in results.read_csv(BENCH / "runtimes_k1.csv")
        if line["threads"] == 1
    }
    over = lambda runtime, form: ms[runtime, "hbonet", form] / ms[runtime, "mobilenetv2", form]
    told = (BENCH / "README.md").read_text()
    assert f"{over('openvino', 'plain'):.2f} plain, {over('openvino', 'deployed'):.2f} deployed" in told
    assert f"ExecuTorch {over('executorch', 'deployed'):.2f}, LiteRT {over('litert', 'deployed'):.2f}" in told
    best = min(value for (_, net, form), value in ms.items() if net == "hbonet" and form != "int8")
    int8 = ms["openvino", "hbonet", "int8"]
    assert f"int8 {int8:.2f} ms, the best float file (ONNX Runtime, deployed) {best:.2f}" in told
    assert best == ms["onnx", "hbonet", "deployed"]
    assert over("openvino", "plain") > 1.1
    assert min(over("executorch", "deployed"), over("litert", "deployed")) > 1.2
    assert best / int8 < 1.3
