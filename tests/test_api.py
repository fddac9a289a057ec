"""What `import hbo` offers."""

import doctest
import subprocess
import sys

import pytest
import pytorch_lightning as pl
import torch
from conftest import ROOT, call, make_voc, only_row, released_state

import hbo
from hbo import api
from hbo.errors import UserError
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


def test_the_lines_of_its_docstring():
    found = doctest.testmod(api)
    assert (found.failed, found.attempted >= 4) == (0, True)


def test_the_lines_of_its_page(run, tmp_path, monkeypatch):
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


def test_importing_it_imports_nothing_heavy():
    code = "import sys, hbo; print(sorted({'torch', 'numpy', 'pandas'} & sys.modules.keys()))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )


def test_a_loaded_network_gives_the_trained_logits_on_what_it_prepares(run):
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


def test_a_module_of_another_task_is_refused(run):
    with pytest.raises(UserError, match="trained with task=classify; use Classify"):
        Detect.load_from_checkpoint(run)
    with pytest.raises(UserError, match=r"a run of yours; use hbo\.load"):
        hbo.load_released(run)


@pytest.mark.parametrize(
    "net", ["hbonet", "mobilenetv2", "torchvision:shufflenet_v2_x0_5", "timm:mobilenetv3_small_050"]
)
def test_features_are_what_the_classifier_is_given(net):
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


def test_wrong_names_are_said_in_a_line():
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


def test_a_released_network_is_known_by_its_shapes(tmp_path):
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
    args = [
        "--data",
        "vocfolder",
        "--data_dir",
        folder,
        "--width",
        0.1,
        "--resolution",
        64,
        "--batch",
        4,
        "--epochs",
        1,
    ]
    call(
        "hbo.fit",
        *args,
        "--warmup",
        0.5,
        "--schedule",
        "cosine",
        "--threads",
        1,
        "--workers",
        0,
        "--out",
        tmp_path / "runs",
    )
    net = hbo.load(only_row(tmp_path / "runs")[1])
    with torch.inference_mode():
        (found,) = net.detections(*net(net.preprocess(_photograph())[None]))
    assert found["boxes"].shape[1] == 4
    assert set(found["labels"].tolist()) <= {0, 1}
    assert net.classes == ["a", "b"]
