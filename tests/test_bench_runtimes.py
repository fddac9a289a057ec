"""hbo.bench infer: files of runtimes in processes of their own, trained runs included. No test asserts a time."""

from dataclasses import asdict
from typing import Any

import pytest
from conftest import call, only_row

from hbo import config
from hbo.analysis import results
from hbo.bench import runtime_table, worker
from hbo.deploy import deploy
from hbo.errors import UserError
from hbo.exporting import check


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_trained_runs_are_timed_in_every_runtime_with_their_top1(tmp_path, short):
    pytest.importorskip("onnxruntime")
    call(
        "hbo.fit", "--data", "digits", "--width", "0.1", "--epochs", "2", "--threads", "1", "--out", tmp_path
    )
    row, folder = only_row(tmp_path)
    shown, _ = call("hbo.bench", "infer", "--trained", folder, "--csv", tmp_path / "bench.csv")
    lines = results.read_csv(tmp_path / "bench.csv")
    runtimes = {"onnx", *(name for names in worker.environments().values() for name in names)}
    assert {line["runtime"] for line in lines} == runtimes
    assert {(line["key"], line["study"]) for line in lines} == {(row["key"], "default")}
    for line in lines:
        if line["form"] != "int8":
            assert line["top1"] == pytest.approx(row["top1"], abs=1e-3)
            assert line["difference"] <= check.TOLERANCE
        if (line["runtime"], line["form"]) == ("onnx", "plain"):
            assert line["speedup"] == 1
    (read,) = results.load(tmp_path / "default").to_dict("records")
    one = {(line["runtime"], line["form"]): line for line in lines if line["threads"] == 1}
    for runtime in runtimes:
        assert read[f"latency_ms_{runtime}"] == one[runtime, "deployed"]["latency_ms"]
    assert "speedup" in shown


def test_a_file_that_fails_is_a_line_with_the_reason_and_the_others_are_timed(monkeypatch, capsys):
    """A float file with other logits, the int8 file of the same network, and a failed conversion."""
    pytest.importorskip("onnxruntime")

    def wrong(net: Any, target: str) -> Any:
        net = deploy(net, target)
        net.classifier.bias += 1
        return net

    class Here:
        """A worker's process, in this one."""

        def ask(self, do, **about):
            return getattr(held, do)(**about)

    held = worker.Timed(["onnx"])
    run = asdict(config.resolve(data="digits", width=0.1, threads=1))
    monkeypatch.setattr("hbo.deploy.deploy", wrong)
    monkeypatch.setattr(type(held.runtimes["onnx"]), "int8", True)
    monkeypatch.setattr(type(held.runtimes["onnx"]), "quantize", lambda *_, **__: 1 / 0)
    made = worker.converted([Here()], do="make", run=run, rival=None, seed=0)  # type: ignore[list-item]
    said = [line for line in capsys.readouterr().err.splitlines() if "not timed" in line]
    assert len(said) == 2
    assert said[0].startswith("onnx:deployed: its logits differ by ")
    assert said[-1].startswith("onnx:int8: its float file failed: its logits differ by ")
    assert "top1" not in made["onnx:int8"]  # so nothing of it can be stored
    assert held.open(threads=1) == ["onnx:plain"]
    found = {
        "runtimes": {name.replace("onnx", "ncnn"): facts for name, facts in made.items()},
        "threads": {"1": {"ms": {"plain": [2.0, 2.0], "ncnn:plain": [1.0, 1.0]}, "limit_ms": 1.0}},
        "bytes": {"plain": 1},
        "onnxruntime": "1",
        "net": "hbonet, k=1",
        "nets": {"own": "hbonet, k=1"},
        "resolution": 8,
        "macs": 1,
        "machine": "a machine",
        "instructions": "AVX2",
        "git": None,
    }
    lines = runtime_table.lines(found)
    assert [(line["runtime"], line["form"], line["latency_ms"]) for line in lines] == [
        ("onnx", "plain", 2),
        ("ncnn", "plain", 1),
        ("ncnn", "deployed", None),
        ("ncnn", "int8", None),
    ]
    assert "ncnn hbonet int8: its float file failed: its logits differ by " in runtime_table.markdown(lines)

    monkeypatch.setattr("hbo.deploy.deploy", deploy)
    made = worker.converted([Here()], do="make", run=run, rival=None, seed=0)  # type: ignore[list-item]
    assert made["onnx:int8"] == {"failed": "ZeroDivisionError: division by zero"}
    assert "failed" not in made["onnx:deployed"]
    monkeypatch.setattr(held, "_compared", lambda *_: 1 / 0)
    with pytest.raises(UserError, match="onnx:plain: ZeroDivisionError"):
        worker.converted([Here()], do="make", run=run, rival=None, seed=0)  # type: ignore[list-item]


def test_the_error_of_a_lost_process_says_how_it_ended(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho first >&2\necho no space left >&2\nexit 3\n")
    python.chmod(0o755)
    ended = worker.Worker(python, ["ncnn"])
    with pytest.raises(UserError, match=r"^ncnn: its process ended with status 3 \(no space left\)$"):
        ended.ask(do="make")
    ended.stop()
    python.write_text("#!/bin/sh\nkill -9 $$\n")
    killed = worker.Worker(python, ["ncnn"])
    with pytest.raises(UserError, match=r"^ncnn: its process ended with signal 9$"):
        killed.ask(do="make")
    killed.stop()
