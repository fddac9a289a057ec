"""What a recipe adds to the paper's: averaged weights, mixed and erased images, dropout; each obeys its law
and resumes bit for bit.
"""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from conftest import call, only_row, start
from flagged import flags
from resumed import same_run, wait_for
from test_fit import DIGITS
from torch import nn
from torch.optim.swa_utils import AveragedModel

import hbo
from hbo.config import resolve
from hbo.errors import UserError
from hbo.nets import build
from hbo.tasks.base import move_average, without_decay
from hbo.tasks.classify import mixing
from hbo.tasks.classify.module import Classify

pytestmark = pytest.mark.usefixtures("short_networks")

ALL = flags(ema=0.95, mixup=0.2, cutmix=1.0, random_erasing=0.25, dropout=0.2, drop_path=0.2)
ALL += flags(auto_augment="trivial", optimizer="adamw", lr=0.003, no_decay_on_norm=True, grad_clip=1.0)


@pytest.mark.slow
def test_a_run_with_all_of_them_resumes_exactly(tmp_path):
    args = [*DIGITS, *ALL, "--wandb", "disabled"]
    call("hbo.fit", *args, "--out", tmp_path / "whole")
    process = start("hbo.fit", *args, "--out", tmp_path / "cut", "--checkpoint_every", 0)
    wait_for(lambda: list((tmp_path / "cut").glob("*/*/last.ckpt")), process)
    process.kill()
    process.communicate()
    call("hbo.fit", *args, "--out", tmp_path / "cut")
    same_run(tmp_path / "whole", tmp_path / "cut")
    row, folder = only_row(tmp_path / "cut")
    assert row["resumed_at"]
    # The averaged weights were evaluated, and they are the ones that are loaded.
    assert f"'top1': {row['top1']}" in str({"top1": _evaluated(folder)})
    state = torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]
    net = hbo.load(folder).state_dict()
    assert all(torch.equal(value, state[f"averaged.{name}"]) for name, value in net.items())
    assert any(not torch.equal(value, state[f"net.{name}"]) for name, value in net.items())


def _evaluated(folder) -> float:
    import json

    return json.loads(call("hbo.evaluate", folder, "--json")[0])["top1"]


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "amsgrad"])
def test_gradients_are_clipped_in_mixed_precision(optimizer, tmp_path):
    """Lightning refuses to clip before a fused step, which unscales the gradients itself."""
    mixed = ["--precision", "bf16-mixed", "--limit_batches", 1, "--optimizer", optimizer, "--lr", 0.001]
    norms = {}
    for clip in (0, 1e-6):
        out = tmp_path / str(clip)
        call("hbo.fit", *DIGITS, *mixed, "--grad_clip", clip, "--wandb", "disabled", "--out", out)
        row, folder = only_row(out)
        norms[clip] = torch.load(folder / "last.ckpt", weights_only=True)["optimizer_states"][0]["state"]
        assert (row["state"], row["precision"], row["grad_clip"]) == ("done", "bf16-mixed", clip)
    momentum = "momentum_buffer" if optimizer == "sgd" else "exp_avg"
    first = {
        clip: max(float(one[momentum].abs().max()) for one in state.values()) for clip, state in norms.items()
    }
    assert first[1e-6] < 1e-2 * first[0]


@pytest.mark.slow
def test_fewer_evaluations_change_nothing_else(tmp_path):
    brief = [*DIGITS, "--limit_batches", 4, "--wandb", "disabled"]
    for name, more in (("each", []), ("few", ["--eval_every", 3])):
        call("hbo.fit", *brief, *more, "--out", tmp_path / name)
    (row, folder), (other, its) = only_row(tmp_path / "each"), only_row(tmp_path / "few")
    assert row["key"] == other["key"]
    assert row["top1"] == other["top1"]
    each, few = (pd.read_csv(path / "metrics.csv") for path in (folder, its))
    assert few["val/top1"].isna().tolist() == [True, True, False, False]  # every third, and the last
    assert (few["val/top1"].dropna() == each["val/top1"][few["val/top1"].notna()]).all()
    assert (few["train/loss"] == each["train/loss"]).all()


def test_the_moving_average_equals_torchs():
    draw = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    ours = copy.deepcopy(net)
    theirs = AveragedModel(net, avg_fn=lambda mean, value, _: 0.9 * mean + 0.1 * value, use_buffers=True)
    theirs.update_parameters(net)  # the first one is a copy
    for _ in range(5):
        with torch.no_grad():
            for weight in net.parameters():
                weight.add_(torch.randn(weight.shape, generator=draw))
        net(torch.randn(2, 3, 5, 5, generator=draw))
        move_average(ours, net, 0.9)
        theirs.update_parameters(net)
    for name, value in ours.state_dict().items():
        if value.is_floating_point():
            assert torch.allclose(value, theirs.module.state_dict()[name], atol=1e-6), name
    assert int(ours[1].num_batches_tracked) == 5


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)])
def test_labels_are_mixed_as_the_images_are(mixup, cutmix):
    """Image i has the single colour i, so the pixels show the share of each image."""
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 32, 32).clone() * 10
    torch.manual_seed(0)
    for _ in range(20):
        mixed, shares = mixing.mixed(images.clone(), torch.arange(4), 4, mixup, cutmix)
        assert torch.allclose(shares.sum(1), torch.ones(4))
        assert torch.allclose(mixed.mean((1, 2, 3)), shares @ (torch.arange(4.0) * 10), atol=1e-3)


def test_the_loss_of_mixed_labels_is_the_mix_of_losses():
    run = resolve(data="digits", width=0.1, label_smoothing=0.1)
    task = Classify(run, 3, class_weights=[0.5, 1.0, 2.0])
    torch.manual_seed(0)
    logits, one, other = torch.randn(6, 3), torch.tensor([0, 1, 2, 2, 1, 0]), torch.tensor([1, 1, 0, 2, 0, 2])
    hard = F.one_hot(one, 3).float()
    assert torch.allclose(task.loss(logits, hard), task.loss(logits, one))
    shares = 0.3 * hard + 0.7 * F.one_hot(other, 3)
    smooth = F.cross_entropy(logits, shares, reduction="none", label_smoothing=0.1)
    assert torch.allclose(
        task.loss(logits, shares), (smooth * (shares @ torch.tensor([0.5, 1.0, 2.0]))).mean()
    )


def test_erased_areas_have_the_mean_and_the_stated_share():
    torch.manual_seed(0)
    images = torch.full((400, 3, 16, 16), 250.0)
    out = mixing.erased(images, 0.3)
    changed = (out != images).flatten(1).any(1)
    assert 0.3 * 400 - 3 * 9.2 < int(changed.sum()) < 0.3 * 400 + 3 * 9.2  # three standard deviations
    mean = torch.tensor(mixing.MEAN).view(3, 1, 1) * 255
    for image in out[changed]:
        gone = (image != 250).all(0)
        assert torch.allclose(image[:, gone], mean.expand(3, 16, 16)[:, gone])


@pytest.mark.parametrize("net", ["hbonet", "hbonet_ir", "mobilenetv2", "mobilenetv2_hbo"])
def test_dropout_is_active_only_in_training_and_keeps_names(net):
    torch.manual_seed(0)
    plain = build(net, width=0.1, num_classes=5)
    other = copy.deepcopy(plain)
    mixing.leave_out(other, 0.5, 0.5)
    assert list(other.state_dict()) == list(plain.state_dict())
    x = torch.rand(2, 3, 64, 64)
    assert torch.equal(plain.eval()(x), other.eval()(x))
    given: list[torch.Tensor] = []
    mixing.last_linear(other).register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    other.train()(torch.rand(16, 3, 64, 64))
    share = float((given[0] == 0).float().mean())
    assert 0.45 < share < 0.6  # half, plus what ReLU6 had set to zero
    built = getattr(plain, "built", None)
    if built:
        assert len(mixing.residual_branches(plain)) == sum(block.residual_channels > 0 for block in built)
    else:  # MobileNetV2's table: stages of 1, 2, 3, 4, 3, 3, 1 blocks, the first of each without a residual
        assert len(mixing.residual_branches(build(net, width=1.0))) == 10


def test_a_branch_is_dropped_for_an_image_or_scaled_up():
    torch.manual_seed(0)
    from hbo.block import InvertedResidual

    block = InvertedResidual(8, 8, 1, 2).eval()
    x = torch.rand(64, 8, 6, 6)
    with torch.no_grad():
        branch = block(x) - x
        block.project.register_forward_hook(mixing.StochasticDepth(0.25))
        for layer in (block.project,):
            layer.training = True  # the hook reads this; batch norm inside stays in evaluation mode
        kept = [
            torch.allclose(out - image, part / 0.75, atol=1e-5)
            for out, image, part in zip(block(x), x, branch, strict=True)
        ]
        torch.manual_seed(1)
        gone = [torch.equal(out, image) for out, image in zip(block(x), x, strict=True)]
    assert 0.5 < np.mean(kept) < 0.95
    assert 0.05 < np.mean(gone) < 0.5


def test_weight_decay_leaves_vectors_out():
    net = build("hbonet", width=0.1, num_classes=5)
    groups = without_decay(net.parameters())
    assert sorted(id(w) for group in groups for w in group["params"]) == sorted(map(id, net.parameters()))
    before = copy.deepcopy(net.state_dict())
    optimizer = torch.optim.SGD(groups, lr=0.5, weight_decay=0.1)
    for weight in net.parameters():
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    for name, weight in net.named_parameters():
        factor = 1 if weight.ndim == 1 else 1 - 0.5 * 0.1
        assert torch.allclose(weight, before[name] * factor), name


def test_a_clipped_update_is_as_long_as_the_rate_says(tmp_path):
    """Plain SGD without momentum moves the weights by lr * clip if the gradient is longer than clip."""
    fields = dict(
        data="digits", width=0.1, epochs=1, limit_batches=1, lr=0.1, momentum=0.0, weight_decay=0.0, threads=1
    )
    import pytorch_lightning as pl

    from hbo.tasks.build import make, open_data

    run = resolve(**fields)
    pl.seed_everything(0, verbose=False)
    start_at = {n: p.detach().clone() for n, p in make(run, open_data(run), 1).named_parameters()}
    hbo.train(**fields, schedule="constant", grad_clip=0.01, out=str(tmp_path), wandb="disabled")
    state = torch.load(only_row(tmp_path)[1] / "last.ckpt", weights_only=True)["state_dict"]
    moved = sum(float((state[name] - value).square().sum()) for name, value in start_at.items()) ** 0.5
    assert moved == pytest.approx(0.1 * 0.01, rel=1e-3)


@pytest.mark.parametrize(("fields", "said"), [
    ({"ema": 1.0}, "ema=1.0: must be in"),
    ({"eval_every": 0}, "eval_every=0: must be at least 1"),
    ({"mixup": -0.1}, "mixup=-0.1: must not be negative"),
    ({"dropout": 0.2, "net": "torchvision:resnet18"}, "has its own; remove it"),
    ({"auto_augment": "rand", "cache": "ram"}, "needs --cache none"),
    ({"random_erasing": 1.5}, "random_erasing=1.5: must be in"),
    ({"drop_path": 1.0}, "drop_path=1.0: must be in"),
])  # fmt: skip
def test_impossible_settings_are_errors(fields, said):
    with pytest.raises(UserError, match=said):
        resolve(data="digits", **fields)
