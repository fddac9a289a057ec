"""hbo.export on a network that was really trained: the file gives the module's logits, and int8 its accuracy."""

import json

import pytest
from conftest import call

pytestmark = pytest.mark.slow


def test_the_file_is_the_run_and_int8_says_what_it_costs(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    flags = ("--data", "digits", "--width", "0.25", "--divisor", "8", "--epochs", "2", "--threads", "1")
    call("hbo.fit", *flags, "--out", tmp_path)
    (folder,) = (path.parent for path in tmp_path.glob("*/*/row.json"))
    row = json.loads((folder / "row.json").read_text())
    call("hbo.export", folder)
    about = json.loads((folder / "last.onnx.json").read_text())
    assert max(about["difference"].values()) < 1e-4
    session = onnxruntime.InferenceSession(folder / "last.onnx")
    assert isinstance(session.get_inputs()[0].shape[0], str)  # any batch
    call("hbo.export", folder, "--int8")
    eight = json.loads((folder / "last-int8.onnx.json").read_text())
    assert eight["float"]["top1"] == pytest.approx(row["top1"], abs=1e-3)
    assert abs(eight["int8"]["top1"] - row["top1"]) < 0.1
    call("hbo.export", tmp_path / "nowhere", expect=2)
