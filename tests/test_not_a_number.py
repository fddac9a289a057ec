"""A network with NaN weights, and flags that are not numbers, are errors wherever a comparison would accept
them.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import call, make_voc, only_row
from flagged import flags
from short import VARIABLE

from hbo import nets
from hbo.block import Block
from hbo.errors import UserError
from hbo.exporting import check
from hbo.metrics import detection
from hbo.nets import size
from hbo.tasks.detect.ssd import Detector

pytestmark = pytest.mark.usefixtures("short_networks")


def refused(err: str, *words: str) -> None:
    lines = err.strip().splitlines()
    assert len([line for line in lines if line.startswith("error: ")]) == 1, err
    assert "Traceback" not in err
    assert all(word in lines[-1] for word in words), lines[-1]


def poison(folder: Path, ending: str) -> None:
    """Set one weight to NaN, and so all logits of one class."""
    content = torch.load(folder / "last.ckpt", weights_only=False)
    name = next(name for name in content["state_dict"] if name.endswith(ending))
    content["state_dict"][name].view(-1)[0] = math.nan
    torch.save(content, folder / "last.ckpt")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A finished run whose checkpoint then gets a NaN."""
    out = tmp_path_factory.mktemp("classifier")
    args = flags(data="digits", width=0.1, epochs=1, limit_batches=2, threads=1, out=out)
    call("hbo.fit", *args)
    row, folder = only_row(out)
    poison(folder, "classifier.bias")
    return args, row, folder


@pytest.mark.slow
def test_a_diverged_classifier_is_not_evaluated(classifier):
    *_, folder = classifier
    for more in ([], ["--json"]):
        out, err = call("hbo.evaluate", folder, *more, expect=2)
        refused(err, "loss nan", "digits")
        assert "%" not in out


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--plain"], ["--int8", "--to", "openvino"]])
def test_a_diverged_classifier_is_not_exported(classifier, more):
    pytest.importorskip("openvino" if "openvino" in more else "onnxruntime")
    *_, folder = classifier
    _, err = call("hbo.export", folder, *more, expect=2)
    refused(err, "not finite", "nothing was written")
    assert not [*folder.glob("*.onnx*"), *folder.glob("*.xml*")]


@pytest.mark.slow
def test_a_diverged_run_resumed_after_its_last_epoch_fails(classifier):
    args, row, folder = classifier
    (folder / "row.json").write_text(json.dumps({**row, "state": "unfinished"}))
    _, err = call("hbo.fit", *args, expect=1)
    refused(err, "the loss is not finite")
    assert json.loads((folder / "row.json").read_text())["state"] == "failed"


@pytest.mark.slow
def test_a_diverged_detector_finds_nothing_and_says_why(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE)  # a detector needs the whole network's maps
    root = make_voc(tmp_path / "set")
    fields = {"data": "vocfolder", "data_dir": str(root), "batch": 4, "epochs": 1, "warmup": 0.5, "width": 0.1, "lr": 0.001,
              "threads": 1, "limit_batches": 1, "resolution": 96}  # fmt: skip
    call("hbo.fit", "--config", json.dumps(fields), "--out", tmp_path / "runs")
    _, folder = only_row(tmp_path / "runs")
    photograph = next((root / "JPEGImages").iterdir())
    for score in (".nan", "-0.1", "1.5"):
        _, err = call("hbo.evaluate", folder, "--image", photograph, "--score", score, expect=2)
        refused(err, "score=", "must be in [0, 1]")
    poison(folder, "classification_head.module_list.0.1.weight")
    _, err = call("hbo.evaluate", folder, expect=2)
    refused(err, "loss nan")
    _, err = call("hbo.evaluate", folder, "--image", photograph, "--out", tmp_path / "found.png", expect=2)
    refused(err, "not finite")
    assert not (tmp_path / "found.png").exists()


def off(found: list[float], expected: list[float]) -> float:
    task = lambda images: torch.tensor([expected])
    for name in ("mean", "std"):
        setattr(task, name, torch.ones(3, 1, 1))
    return check.difference(lambda images: np.array([found], np.float32), task, torch.zeros(1, 3, 2, 2))


def test_the_exports_difference():
    assert off([1.0, 2.0], [1.0, 2.5]) == pytest.approx(0.2)
    assert off([0.0, 0.0], [0.0, 0.0]) == 0.0
    assert not off([math.nan, 2.0], [1.0, 2.0]) <= check.TOLERANCE
    with pytest.raises(UserError, match="own logits are not finite"):
        off([1.0, 2.0], [1.0, math.nan])


def varied(found: list[list[float]], expected: list[list[float]]) -> tuple[float, float]:
    task = lambda images: torch.tensor(expected)
    for name in ("mean", "std"):
        setattr(task, name, torch.ones(3, 1, 1))
    return check.differences(
        lambda images: np.array(found, np.float32), task, torch.zeros(len(expected), 3, 2, 2)
    )


def test_varying_outputs_are_compared_separately():
    """The difference is within 1e-4 of the largest logit, yet half of the variation between images is
    missing; a smaller variation cannot be compared.
    """
    whole, varying = varied([[100.0, 1.0075], [100.0, 1.0225]], [[100.0, 1.0], [100.0, 1.03]])
    assert whole < check.TOLERANCE
    assert varying == pytest.approx(0.5, rel=1e-2)
    assert varying > check.VARYING
    with pytest.raises(UserError, match=r"vary by 1e-05 of the largest between 2 images"):
        varied([[100.0, 1.0], [100.0, 1.0]], [[100.0, 1.0], [100.0, 1.002]])


def test_a_diverged_detector_has_no_metrics():
    """A bad loss, score or box makes all of them NaN; otherwise the mAP would be 0 or 1."""
    box = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    one = torch.tensor([1])
    good = {"index": torch.tensor([0]), "loss": torch.tensor([0.5]), "matched": one, "image": torch.tensor([0]), "box": box,
            "score": torch.tensor([0.9]), "label": torch.tensor([0]), "true_image": torch.tensor([0]),
            "true_box": box,
            "true_label": torch.tensor([0]), "difficult": torch.tensor([False])}  # fmt: skip
    assert detection(good, ["a"])["map"] == 1.0
    for name in ("loss", "score", "box"):
        for value in (math.nan, math.inf):
            bad = good | {name: torch.full_like(good[name], value)}
            assert all(math.isnan(number) for number in detection(bad, ["a"]).values()), name


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 0.0])
def test_values_that_are_not_finite_are_errors(value):
    with pytest.raises(UserError, match=f"width={value}"):
        nets.build("hbonet", width=value)
    with pytest.raises(UserError, match=f"match_macs={value}"):
        size.width_for(value, "hbonet", Block(), 2, "release")
    with pytest.raises(UserError, match=f"min_scale={value}"):
        Detector(nets.build(width=0.1), 2, min_scale=value)


@pytest.mark.parametrize(
    ("flag", "value"), [("width", ".nan"), ("match_macs", ".nan"), ("match_macs", ".inf")]
)
def test_flags_that_are_not_finite_are_one_line(flag, value):
    _, err = call("hbo.cost", f"--{flag}", value, expect=2)
    refused(err, flag)


@pytest.mark.parametrize(("parameter", "word"), [
    ({"values": [1, 2], "probabilities": [math.nan, 0.5]}, "add up to 1"),
    ({"distribution": "q_uniform", "min": 0, "max": 1, "q": math.nan}, "must be a number"),
    ({"distribution": "normal", "mu": 0, "sigma": math.nan}, "must be a number"),
])  # fmt: skip
def test_a_sweeps_values_that_are_not_finite_are_errors(parameter, word):
    from hbo.sweep import parameters

    with pytest.raises(UserError, match=word):
        parameters.distribution("lr", parameter)
