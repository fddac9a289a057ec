"""What `import hbo` offers."""

import doctest
import json
import shutil
import subprocess
import sys

import pytest
import pytorch_lightning as pl
import torch
from conftest import ROOT, call, make_folder, make_voc, only_row, released_state
from flagged import flags
from safetensors.torch import save_file

import hbo
from hbo import api, hub, predict
from hbo.block import Block
from hbo.config import resolve
from hbo.data import Data
from hbo.errors import UserError
from hbo.exporting import card
from hbo.runs import checkpoint
from hbo.tasks import build
from hbo.tasks.classify.module import Classify
from hbo.tasks.detect.module import Detect


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    row = hbo.train(
        data="digits", k=2, width=0.1, epochs=1, limit_batches=4, threads=1, out=str(out), wandb="disabled"
    )
    assert row["state"] == "done"
    return only_row(out)[1]


def test_the_examples_of_its_docstring_run():
    found = doctest.testmod(api)
    assert (found.failed, found.attempted >= 4) == (0, True)


def test_the_examples_of_its_page_run(run, tmp_path, monkeypatch):
    """As printed, with this test's run in place of KEY."""
    text = (
        (ROOT / "docs" / "train.md")
        .read_text()
        .split("\n## In Python\n")[1]
        .split("```python\n")[1]
        .split("```")[0]
    )
    photograph = tmp_path / "cell.png"
    from PIL import Image

    Image.new("L", (60, 50), 90).save(photograph)
    monkeypatch.chdir(tmp_path)
    torch.save(released_state("width0.25_div8_k2"), "hbonet.pth")
    text = text.replace('"runs/default/KEY"', repr(str(run))).replace(
        "epochs=2", 'epochs=1, limit_batches=4, wandb="disabled"'
    )
    names: dict = {}
    exec(text, names)
    assert names["row"]["top1"] >= 0
    assert names["probabilities"].shape == (10,)


def test_import_hbo_is_light():
    code = "import sys, hbo; print(sorted({'torch', 'numpy', 'pandas'} & sys.modules.keys()))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )


def test_a_loaded_network_repeats_the_trained_logits(run):
    from hbo.config import resolve
    from hbo.tasks.build import open_data

    net = hbo.load(run)
    task = Classify.load_from_checkpoint(run / "last.ckpt").eval()
    assert isinstance(task, pl.LightningModule)
    images = open_data(resolve(data="digits"), reported=True).val
    pixels = torch.stack([images[0, i][0] for i in range(8)])
    with torch.inference_mode():
        expected = task(pixels)
        raw = [images.source(i).expand(3, -1, -1).permute(1, 2, 0).numpy() for i in range(8)]
        from PIL import Image

        ready = torch.stack([net.preprocess(Image.fromarray(image)) for image in raw])
        assert torch.equal(net(ready), expected)
    assert net.classes == [str(i) for i in range(10)]
    assert not net.training


def test_a_module_of_another_task_is_an_error(run):
    with pytest.raises(UserError, match="trained with task=classify; use Classify"):
        Detect.load_from_checkpoint(run)
    with pytest.raises(UserError, match=r"a run of yours; use hbo\.load"):
        hbo.load_released(run)


@pytest.mark.parametrize(
    "net", ["hbonet", "mobilenetv2", "torchvision:shufflenet_v2_x0_5", "timm:mobilenetv3_small_050"]
)
def test_features_are_the_classifiers_input(net):
    width = 0.1 if ":" not in net else 0.25
    whole, bare = (
        hbo.build(net, width=width, num_classes=7).eval(),
        hbo.build(net, width=width, num_classes=0).eval(),
    )
    state, last = whole.state_dict(), list(whole.state_dict())[-2:]
    bare.load_state_dict({name: value for name, value in state.items() if name not in last})
    x = torch.rand(2, 3, 64, 96)
    with torch.inference_mode():
        assert torch.allclose(bare(x) @ state[last[0]].T + state[last[1]], whole(x), atol=1e-6)
    with pytest.raises(UserError, match="num_classes=-1: must not be negative"):
        hbo.build(net, num_classes=-1)


def test_wrong_names_are_one_line():
    for given, said in (
        ({"kk": 2}, "kk=2: no such switch; did you mean k?"),
        ({"k": "two"}, "k"),
        ({"net": "hbnet"}, "did you mean hbonet"),
    ):
        with pytest.raises(UserError, match=said):
            hbo.build(**given)
    with pytest.raises(UserError, match="epoch: no such field"):
        hbo.train(epoch=1)
    with pytest.raises(AttributeError, match="no attribute 'biuld'"):
        hbo.biuld  # noqa: B018


def test_a_released_network_is_recognised_by_its_shapes(tmp_path):
    torch.save(released_state("width0.25_div8_k2"), tmp_path / "hbonet.pth")
    net = hbo.load_released(tmp_path / "hbonet.pth")
    assert hbo.macs(net, 224) == hbo.macs(hbo.build(k=2, width=0.25, divisor=8), 224)
    assert net.preprocess.pixels(_photograph()).shape == (3, 224, 224)


def _photograph():
    from PIL import Image

    return Image.new("RGB", (300, 260), (30, 90, 40))


@pytest.mark.slow
def test_a_detector_from_a_line_makes_boxes(tmp_path):
    folder = make_voc(tmp_path / "voc", train=8, test=3)
    args = flags(data="vocfolder", data_dir=folder, width=0.1, resolution=64, batch=4, epochs=1)
    args += flags(warmup=0.5, schedule="cosine", threads=1, workers=0, out=tmp_path / "runs")
    call("hbo.fit", *args)
    net = hbo.load(only_row(tmp_path / "runs")[1])
    with torch.inference_mode():
        (found,) = net.detections(*net(net.preprocess(_photograph())[None]))
    assert found["boxes"].shape[1] == 4
    assert set(found["labels"].tolist()) <= {0, 1}
    assert net.classes == ["a", "b"]


def test_a_network_loads_after_its_folder_is_gone(tmp_path):
    """Its folder was split after training: only an evaluation needs the images."""
    folder = make_folder(tmp_path / "set", {"a": 4, "b": 4}, {})
    (folder / "train").rename(tmp_path / "whole")
    where = tmp_path / "whole"
    run = resolve(data_dir=str(where), val_split=0.25, width=0.1, resolution=32, batch=2, threads=1)
    task = build.make(run, Data(None, None, ["a", "b"]))
    saved = {"hyper_parameters": dict(task.hparams), "state_dict": task.state_dict(), "classes": ["a", "b"]}
    torch.save(saved, tmp_path / "last.ckpt")
    shutil.rmtree(where)
    make_folder(where, {"a": 2, "b": 2}, {"a": 1, "b": 1})
    assert hbo.load(tmp_path).classes == ["a", "b"]
    assert predict.opened(tmp_path, {}).run.val_split == 0.25
    with pytest.raises(UserError, match="is already split"):
        checkpoint.trained(tmp_path, {})


def test_weights_older_than_a_switch_have_its_default(tmp_path):
    """Every switch of the block is read from the file, and one that the file does not know has its default."""
    net = hbo.build("hbonet", k=2, width=0.1, divisor=8, num_classes=3, upsample="bilinear").eval()
    assert set(hub.FIELDS) > set(Block.__dataclass_fields__)
    run = {
        name: getattr(resolve(k=2, width=0.1, divisor=8, upsample="bilinear"), name) for name in hub.FIELDS
    }
    del run["kernel"]
    facts = {"run": json.dumps(run | {"net": "hbonet"}), "classes": "3"}
    save_file(net.state_dict(), tmp_path / "net.safetensors", facts)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        found = hub.network("hbonet", weights=tmp_path / "net.safetensors")(image)
        torch.testing.assert_close(found, net(image))


def test_a_card_names_a_way_to_load_a_zoo_s_network():
    """torch.hub finds only names in hubconf.py, and none of them has a colon."""
    assert "hub.load" in "".join(card._loaded("hbonet", "a.safetensors"))
    lines = card._loaded("torchvision:resnet18", "a.safetensors")
    assert lines == [
        "from hbo import hub",
        'net = hub.network("torchvision:resnet18", weights="a.safetensors")',
    ]
