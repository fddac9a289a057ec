"""hbo.export on a trained network: the file gives the module's logits, and int8's accuracy is measured."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, call, only_row
from PIL import Image

import hbo
from hbo import evaluate, export, hub
from hbo.analysis import results
from hbo.deploy.runtimes import RUNTIMES, named
from hbo.exporting import about as describe
from hbo.exporting import check
from hbo.runs import checkpoint

pytestmark = [pytest.mark.usefixtures("short_networks"), pytest.mark.slow]


def example(name: str, int8: bool = False) -> str:
    """An example of docs/deploy.md: its code for the photograph, then that for a runtime."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "deploy.md").read_text(), re.DOTALL)
    (photograph,), (runtime,) = (
        [block for block in blocks if block.startswith(f"# {word}\n")] for word in ("photograph", name)
    )
    assert len(runtime.splitlines()) <= 20
    return photograph + (runtime.replace('"last.', '"last-int8.') if int8 else runtime)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Digits, two epochs: the row and the folder."""
    out = tmp_path_factory.mktemp("digits")
    call("hbo.fit", "--data", "digits", "--width", "0.1", "--epochs", "2", "--threads", "1", "--out", out)
    return only_row(out)


def test_the_file_takes_any_batch(run, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    _, folder = run
    call("hbo.export", folder, "--file", tmp_path / "net.onnx")
    about = json.loads((tmp_path / "net.onnx.json").read_text())
    assert max(about["difference"].values()) < 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    assert isinstance(session.get_inputs()[0].shape[0], str)
    call("hbo.export", tmp_path / "nowhere", expect=2)


@pytest.mark.parametrize(
    ("main", "argv", "message"),
    [
        (evaluate, ["--lr", "3", "--epochs", "2"], "lr=3.0: only training uses this; remove it"),
        (evaluate, ["--jitter", "0.3"], "jitter=0.3: only training uses this; remove it"),
        (export, ["--force"], "force=True: only training uses this; remove it"),
        (
            export,
            ["--out", "net.onnx"],
            "out=net.onnx: is for runs; --file FILE names what hbo.export writes",
        ),
        (
            evaluate,
            ["--out", "a.json"],
            "out=a.json: names the picture of --image; without one nothing is written; remove it",
        ),
    ],
)
def test_a_flag_that_a_trained_network_cannot_obey_is_an_error(run, main, argv, message, capsys):
    """But the run's own values are accepted, as of `--config` its config.yaml."""
    with pytest.raises(SystemExit, match="2"):
        main.main([str(run[1]), *argv])
    assert capsys.readouterr().err == f"error: {message}\n"


@pytest.mark.filterwarnings("ignore")
def test_int8_measures_its_accuracy_and_records_it_for_the_study(run, tmp_path):
    pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    row, folder = run[0], Path(shutil.copytree(run[1], tmp_path / "default" / run[1].name))
    _, eight = export.export(folder, {"threads": 1}, int8=True, to="openvino")
    assert json.loads((folder / "last-int8.xml.json").read_text())["int8"] == eight["int8"]
    assert max(eight["float_difference"].values()) < check.TOLERANCE
    assert eight["difference"]["real, what varies"] > 1e-3  # int8 has an error of its own
    assert eight["float"]["top1"] == pytest.approx(row["top1"], abs=1e-3)
    assert abs(eight["int8"]["top1"] - row["top1"]) < 0.1
    assert json.loads((folder / "row.json").read_text()) == row  # unchanged since training
    (read,) = results.load(tmp_path).to_dict("records")
    assert read["int8_top1_openvino"] == eight["int8"]["top1"]
    # A result at another resolution is not the row's.
    larger = {"threads": 1, "resolution": 64, "eval_resize": 64}
    file = str(tmp_path / "large.xml")
    _, other = export.export(folder, larger, int8=True, calibration=4, file=file, to="openvino")
    assert other["int8"]["top1"] != eight["int8"]["top1"]
    assert results.load(tmp_path)["int8_top1_openvino"].tolist() == [eight["int8"]["top1"]]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", RUNTIMES)
def test_the_file_of_every_runtime_is_checked_and_the_example_in_the_docs_runs(
    run, name, tmp_path, monkeypatch, capsys
):
    runtime = named(name)
    if not runtime.installed():
        pytest.skip(f"{runtime.title} is not installed: pip install -e '.[{runtime.extra}]'")
    row, folder = run
    path, about = export.export(folder, {"threads": 1}, to=name)
    assert about["real_images"] == 32
    assert max(about["difference"].values()) < 1e-4
    written = json.loads(path.with_name(path.name + ".json").read_text())
    assert (written["key"], written["classes"]) == (row["key"], [str(i) for i in range(10)])
    assert written["metrics"]["top1"] == row["top1"]
    assert not {"devices", "num_nodes", "threads", "out"} & written["run"].keys()  # machine settings
    assert written["licence"] == {"code": "MIT", "images": "CC BY 4.0"}
    for file in folder.glob(f"{path.name.split('.')[0]}.*"):
        if file.suffix != ".ckpt":
            for path_here in (folder.parent, ROOT, Path(torch.__file__).parents[1]):
                assert str(path_here).encode() not in file.read_bytes(), (
                    f"{file.name} names a path of this machine"
                )
    drawn = np.random.RandomState(0).randint(0, 256, (3, 4, 3), dtype=np.uint8)
    Image.fromarray(drawn).resize((90, 60), Image.Resampling.BICUBIC).save(folder / "photograph.png")
    monkeypatch.chdir(folder)
    capsys.readouterr()
    space: dict[str, Any] = {}
    exec(example(name), space)
    net = hbo.load(folder)
    image = net.preprocess(folder / "photograph.png")[None]
    prepared = torch.from_numpy(space["prepared"]("photograph.png", written))
    assert (prepared - image).abs().max() < 0.1  # a level or two of 255
    # On the same pixels: after two updates logits are so close that one level can change the class.
    with torch.no_grad():
        assert capsys.readouterr().out.strip() == net.classes[int(net(prepared).argmax())]
    monkeypatch.chdir(os.path.dirname(ROOT))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", RUNTIMES)
def test_the_example_runs_with_an_int8_file_too_and_says_what_it_takes(
    run, name, tmp_path, monkeypatch, capsys
):
    runtime = named(name)
    if not runtime.installed() or not runtime.int8:
        pytest.skip(f"{runtime.title} is not installed, or has no int8")
    file = tmp_path / f"last-int8{runtime.suffix}"
    export.export(run[1], {"threads": 1}, int8=True, calibration=8, file=str(file), to=name)
    written = json.loads(file.with_name(file.name + ".json").read_text())
    side = 32
    assert (
        written["input"]
        == {
            "openvino": {"name": "image", "shape": ["batch", 3, side, side], "type": "float32"},
            "litert": {"name": "serving_default_args_0", "shape": [1, 3, side, side], "type": "int8"},
            "executorch": {"name": None, "shape": [1, 3, side, side], "type": "float32"},
        }[name]
    )
    if name == "litert":
        from ai_edge_litert.interpreter import Interpreter  # pyright: ignore

        (given,) = Interpreter(str(file)).get_input_details()
        assert (given["name"], given["dtype"]) == (written["input"]["name"], np.int8)
    drawn = np.random.RandomState(0).randint(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(drawn).save(tmp_path / "photograph.png")
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    exec(example(name, int8=True), {})
    assert capsys.readouterr().out.strip() in written["classes"]
    monkeypatch.chdir(os.path.dirname(ROOT))


@pytest.mark.parametrize("data", [None, "digits"])
def test_logits_that_do_not_depend_on_the_image_are_refused_with_and_without_real_images(run, data, tmp_path):
    """After two updates the logits may be only bias, and any constant file would pass."""
    pytest.importorskip("onnxruntime")
    content = torch.load(run[1] / "last.ckpt", weights_only=True)
    for name, value in content["state_dict"].items():
        if name.endswith("classifier.weight"):
            value.zero_()
    if data is None:
        content["hyper_parameters"] |= {"data": "imagefolder", "data_dir": str(tmp_path / "gone")}
    torch.save(content, tmp_path / "last.ckpt")
    with pytest.raises(
        export.UserError, match=r"the checkpoint's logits vary by \S+ of the largest between 32"
    ):
        export.export(tmp_path, {"threads": 1})
    assert not [*tmp_path.glob("*.onnx*")]


def test_other_logits_of_a_deployed_network_point_to_plain(run, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr("hbo.deploy.deploy", lambda net, _: torch.nn.Sequential(net, torch.nn.ReLU6()))
    ends = "nothing was written"
    with pytest.raises(export.UserError, match=f"{ends}; --plain exports the network unchanged$"):
        export.export(run[1], {"threads": 1}, file=str(run[1] / "wrong.onnx"))
    monkeypatch.setattr(check, "distances", lambda *_: {"real, 32 images": 6.0})
    with pytest.raises(export.UserError, match=rf"real, 32 images, are 6\.0e\+00 of the largest .*; {ends}$"):
        export.export(run[1], {"threads": 1}, file=str(run[1] / "wrong.onnx"), plain=True)
    assert not list(run[1].glob("wrong*"))


def test_a_file_that_cannot_be_written_is_refused_before_the_work(run, tmp_path, monkeypatch):
    (tmp_path / "net.onnx").mkdir()
    trained = checkpoint.trained(run[1], {"threads": 1})
    with pytest.raises(export.UserError, match=r"net\.onnx: is a folder"):
        export.target(trained, str(tmp_path / "net.onnx"), "", ".onnx")
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)  # as for anybody but root
    with pytest.raises(export.UserError, match="is not writable; name another place with --file"):
        export.target(trained, str(tmp_path / "other.onnx"), "", ".onnx")


def test_safetensors_and_its_card_come_back_through_the_hub(run):
    row, folder = run
    path, _ = export.export(folder, {"threads": 1}, to="safetensors")
    card = path.with_suffix(".md").read_text()
    assert f"{100 * row['top1']:.2f} %" in card
    assert "CC BY 4.0" in card
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        found, expected = (hub.network("hbonet", weights=weights)(images) for weights in (path, folder))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    for weights in (path, folder):
        with pytest.raises(export.UserError, match="of hbonet, not of mobilenetv2"):
            hub.network("mobilenetv2", weights=weights)
    with pytest.raises(export.UserError, match="int8: is for runtimes"):
        export.export(folder, {}, to="safetensors", int8=True)
    for to in ("safetensors", "onnx"):
        with pytest.raises(export.UserError, match="calibration=64: only int8 is calibrated"):
            export.export(folder, {}, to=to, calibration=64)


def test_no_file_of_another_is_overwritten(run, tmp_path):
    _, folder = run
    trained = checkpoint.trained(folder, {"threads": 1})
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(export.UserError, match=r"README\.md would be overwritten, and is another file's"):
        export.export(folder, {"threads": 1}, to="safetensors", file=str(tmp_path / "README.safetensors"))
    assert (tmp_path / "README.md").read_text() == "mine"
    vino, ncnn = named("openvino"), named("ncnn")
    with pytest.raises(export.UserError, match=r"must end in \.ncnn\.param"):
        export.target(trained, str(tmp_path / "net.param"), "", ncnn.suffix, ncnn.beside)
    names = [
        export.target(trained, str(tmp_path / f"net{one.suffix}"), "", one.suffix, one.beside)
        .with_suffix(".bin")
        .name
        for one in (vino, ncnn)
    ]
    assert names == ["net.bin", "net.ncnn.bin"]
    (tmp_path / "net.bin").write_text("weights")
    with pytest.raises(export.UserError, match=r"net\.bin would be overwritten"):
        export.target(trained, str(tmp_path / "net.xml"), "", vino.suffix, vino.beside)
    (tmp_path / "net.xml").write_text("graph")  # the file's own, from an earlier export: overwritten
    export.target(trained, str(tmp_path / "net.xml"), "", vino.suffix, vino.beside)


def test_flags_of_the_export_do_not_change_what_a_file_says_of_its_training(run):
    """Flags of the export do not change the recorded training set or its licence; at another size there are
    no metrics.
    """
    row, folder = run
    _, about = export.export(
        folder, {"threads": 1, "resolution": 64, "eval_resize": 64}, file=str(folder / "other.onnx")
    )
    assert about["input"]["shape"] == ["batch", 3, 64, 64]
    assert (about["metrics"], about["macs"], about["run"]["resolution"]) == ({}, None, 32)
    trained = checkpoint.trained(folder, {"data": "elpv"})
    said = describe.facts(trained)
    assert (said["metrics_on"]["data"], said["licence"]["images"], said["run"]["data"]) == (
        "digits",
        "CC BY 4.0",
        "digits",
    )
    assert said["metrics"] == {} or said["metrics"]["top1"] == row["top1"]


def test_torch_hub_builds_from_a_checkout():
    net = torch.hub.load(str(ROOT), "hbonet", source="local", k=2, width=0.1, num_classes=5)
    assert net(torch.zeros(1, 3, 64, 64)).shape == (1, 5)


def test_pretrained_says_where_weights_come_from():
    with pytest.raises(
        export.UserError, match="pretrained: the project has no weights of its own; weights=FILE"
    ):
        torch.hub.load(str(ROOT), "hbonet", source="local", pretrained=True)


@pytest.mark.parametrize("task", ["detect", "reid"])
def test_other_tasks_are_refused_in_words(task, tmp_path):
    trained: Any = SimpleNamespace(path=tmp_path / "last.ckpt", run=SimpleNamespace(task=task))
    for suffix in (".onnx", ".safetensors"):
        with pytest.raises(export.UserError, match=f"trained to {task}; only classifiers can be exported"):
            export.target(trained, None, "", suffix)


def test_torch_hub_names_every_package_that_it_would_miss():
    """Of the project's own dependencies, those that importing hubconf loads."""
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    packages = {re.match(r"[\w-]+", needed)[0].replace("-", "_") for needed in project["dependencies"]}
    packages |= {"PIL", "yaml", "sklearn"}
    code = "import hubconf, json, sys; print(json.dumps([[*sys.modules], hubconf.dependencies]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded, named_there = json.loads(done.stdout)
    assert packages & set(loaded) <= set(named_there)
    assert "safetensors" in named_there  # for weights=FILE
