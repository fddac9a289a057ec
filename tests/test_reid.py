"""Re-identification: recipe, features, losses, training the classifier alone."""

import numpy as np
import pytest
import torch
from conftest import call
from torch import nn

from hbo import cost, nets
from hbo.block import Block
from hbo.config import resolve
from hbo.errors import UserError
from hbo.runs import checkpoint
from hbo.tasks import build
from hbo.tasks.base import Schedule
from hbo.tasks.build import network as build_net
from hbo.tasks.reid.embedding import Embedding
from hbo.tasks.reid.module import triplet


def reid(**given):
    return resolve(**{"data": "marketfolder", "resolution": 64, **given})


# ------------------------------------------------------------ recipe


def test_market_s_recipe_is_the_papers():
    run = resolve(data="market1501", width=0.5)
    assert (run.task, run.size, run.flip) == ("reid", (256, 128), "horizontal")
    assert (run.optimizer, run.lr, run.momentum, run.weight_decay, run.batch) == (
        "amsgrad",
        1e-3,
        0.9,
        5e-4,
        32,
    )
    assert (run.epochs, run.schedule, run.drops, run.label_smoothing) == (90, "step", [60], 0.1)
    assert (run.classifier_epochs, run.instances, run.triplet, run.bn_neck) == (0, None, False, False)
    assert resolve(task="reid").data == "market1501"


def test_a_width_of_one_trains_for_30_epochs_more():
    for net in ("hbonet", "mobilenetv2"):
        run = resolve(data="market1501", net=net, width=1.0)
        assert (run.epochs, run.drops) == (120, [60])
        assert resolve(data="market1501", net=net, width=1.0, epochs=12).drops == [6]
    assert resolve(data="market1501", net="torchvision:resnet50").epochs == 90
    assert resolve(data="market1501", epochs=9).drops == [6]


def test_the_classifier_is_trained_alone_where_there_is_a_checkpoint():
    run = resolve(data="market1501", backbone_checkpoint="some.pth")
    assert (run.classifier_epochs, run.epochs, run.all_epochs) == (10, 90, 100)
    assert resolve(data="market1501", backbone_checkpoint="some.pth", classifier_epochs=0).all_epochs == 90
    schedule = Schedule(run, steps_per_epoch=4)
    assert [schedule(t) for t in (0, 39, 40, 4 * 70 - 1)] == [1.0] * 4
    assert schedule(4 * 70) == pytest.approx(0.1)
    assert Schedule(reid(epochs=3, warmup=1.0, milestones="2"), 4)(0) == 0.25


@pytest.mark.parametrize(("given", "word"), [
    ({"classifier_epochs": 5}, "needs --backbone_checkpoint"),
    ({"triplet": True}, "needs --instances of at least 2"),
    ({"instances": 1}, "at least 2"),
    ({"instances": 5}, "the 32 images of a batch"),
    ({"instances": 32}, "of at least 2 identities"),
    ({"instances": 16, "devices": 2}, "the 16 images"),
    ({"aspect": 8.0}, "the width, resolution=64 over it, must be at least 16"),
    ({"aspect": -1.0}, "aspect=-1.0"),
    ({"nesterov": True}, "is an option of SGD"),
    ({"eval_resize": 80}, "uses the whole image"),
    ({"crop": "pad"}, "crop=pad: is not used by task=reid"),
    ({"limit_batches": 2}, "limit_batches=2: is not used by task=reid"),
    ({"holdout": 0.2}, "holdout=0.2: is not used by task=reid"),
    ({"data": "digits", "bn_neck": True}, "bn_neck=True: is not used by task=classify"),
    ({"data": "voc", "aspect": 2.0}, "aspect=2.0: is not used by task=detect"),
    ({"data": "digits", "task": "reid"}, "data=digits is for task=classify; use --data market1501, marketfolder"),
])  # fmt: skip
def test_what_re_identification_cannot_obey_is_refused(given, word):
    with pytest.raises(UserError, match=word):
        reid(**given)


# ------------------------------------------------------------ features


def test_the_feature_is_what_the_networks_own_classifier_is_given():
    """For each kind of network: the input of its last layer, recorded in a pass of the whole network."""
    images = torch.randn(2, 3, 64, 64)
    for name, last, channels in (
        ("hbonet", "classifier", 1600), ("mobilenetv2", "classifier.1", 1280),
        ("torchvision:resnet50", "net.fc", 2048),
        ("timm:convnext_atto", "net.head.fc", 320), ("pytorchcv:mobilenet_w1", "net.output", 1024),
    ):  # fmt: skip
        whole = nets.build(name, num_classes=7).eval()
        given = []
        whole.get_submodule(last).register_forward_pre_hook(
            lambda _m, args, given=given: given.append(args[0])
        )
        whole(images)
        parameters = sum(p.numel() for p in whole.parameters()) - sum(
            p.numel() for p in whole.get_submodule(last).parameters()
        )
        embedding = Embedding(whole).eval()
        assert embedding.channels == channels
        assert torch.equal(embedding(images), given[0])
        assert cost.parameters(embedding) == parameters


def test_a_network_without_a_linear_end_is_refused():
    with pytest.raises(UserError, match="does not end with a linear classifier"):
        Embedding(nets.build("torchvision:squeezenet1_1", num_classes=7))


def test_costs_are_those_of_the_feature():
    run = resolve(data="market1501", width=0.5)
    whole = cost.count(nets.build("hbonet", Block(), 0.5), (256, 128))
    assert build.cost(run, 751).macs == whole["total"].macs - whole["classifier"].macs
    assert build.cost(run, 751).params == whole["total"].params - whole["classifier"].params
    assert (
        build.cost(resolve(data="market1501", width=0.5, aspect=1.0), 751).macs
        > 1.9 * build.cost(run, 751).macs
    )
    assert "256 x 128, without its classifier" in call("hbo.cost", "--task", "reid", "--width", 0.5)[0]


# ------------------------------------------------------------ losses, optimizer


def batch_of(n: int = 12, classes: int = 4):
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, 3, 64, 32), generator=draw, dtype=torch.uint8)
    return images, torch.arange(n) % classes, torch.arange(n)


class Data:
    """The part of a data set that `build.make` uses."""

    classes = tuple("abcd")


def made(**given):
    torch.manual_seed(0)
    task = build.make(reid(width=0.1, batch=12, **given), Data())  # pyright: ignore
    with torch.no_grad():
        task.classifier.weight.mul_(100)  # so that the first logits differ
    return task.train()


def test_label_smoothing_is_the_formula():
    """0.9 times the right identity's negative log-probability plus 0.1 times the mean over all."""
    task, batch = made(), batch_of()
    loss, n = task.training_loss(batch)
    feature = task(batch[0]).double()
    logits = feature @ task.classifier.weight.double().T + task.classifier.bias.double()
    logs = logits - logits.exp().sum(1, keepdim=True).log()
    right = logs[torch.arange(12), batch[1]]
    expected = -(0.9 * right + 0.1 * logs.mean(1)).mean()
    assert n == 12
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert logs.min().item() < -2  # far from uniform, where smoothing has no effect


def test_triplets_against_loops():
    draw = torch.Generator().manual_seed(0)
    for seed in range(5):
        feature = (1 + seed) * 0.2 * torch.randn(12, 3, generator=draw)
        labels = torch.randint(0, 3, (12,), generator=draw)
        labels[:3] = torch.arange(3)
        losses = []
        for a in range(12):
            far = lambda b, a=a, f=feature: float(((f[a] - f[b]) ** 2).sum() ** 0.5)
            positives = [far(b) for b in range(12) if labels[b] == labels[a]]
            negatives = [far(b) for b in range(12) if labels[b] != labels[a]]
            losses.append(max(0.0, max(positives) - min(negatives) + 0.3))
        assert triplet(feature, labels).item() == pytest.approx(np.mean(losses), rel=1e-4)
        assert np.mean(losses) > 0
    # An image with itself: a distance of 0 still has a gradient.
    twins = torch.zeros(4, 3, requires_grad=True)
    triplet(twins, torch.tensor([0, 0, 1, 1])).backward()
    assert twins.grad is not None
    assert twins.grad.isfinite().all()


def test_half_precision_leaves_triplets_alone():
    """Close features: as a difference of squares in bfloat16, their distances would be noise."""
    draw = torch.Generator().manual_seed(0)
    feature, labels = 1 + 0.02 * torch.randn(16, 256, generator=draw), torch.arange(16) // 4
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = triplet(feature, labels).item()
    assert half == pytest.approx(triplet(feature, labels).item(), rel=1e-6)


def test_the_triplet_loss_comes_on_top():
    plain, both = made(), made(triplet=True, instances=3)
    batch = batch_of()
    losses = [task.training_loss(batch)[0].item() for task in (plain, both)]
    assert losses[1] - losses[0] == pytest.approx(triplet(both(batch[0]), batch[1]).item(), rel=1e-4)


def test_the_neck_normalises_what_is_classified_and_retrieved():
    plain, neck = made(), made(bn_neck=True)
    assert isinstance(neck.embedding.neck, nn.BatchNorm1d)
    assert neck.classifier.bias is None
    assert not neck.embedding.neck.bias.requires_grad
    images, *_ = batch_of()
    for task in (plain, neck):
        task.eval()
    assert torch.equal(plain.retrieved_by(images), plain(images))
    neck.embedding.neck.running_mean += 1
    expected = (neck(images) - 1) / (1 + neck.embedding.neck.eps) ** 0.5
    torch.testing.assert_close(neck.retrieved_by(images), expected)


@pytest.mark.parametrize("neck", [False, True])
def test_features_are_averaged_with_the_mirrored_images(neck):
    plain, both = made(bn_neck=neck).eval(), made(bn_neck=neck, flip_features=True).eval()
    both.load_state_dict(plain.state_dict())
    images, *_ = batch_of()
    images[0] = images[0].flip(-1).maximum(images[0])  # its own mirror image
    # Untrained features are about 1e-6.
    close = lambda a, b: torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-9)
    mean = (plain.retrieved_by(images) + plain.retrieved_by(images.flip(-1))) / 2
    close(both.retrieved_by(images), mean)
    close(both.retrieved_by(images.flip(-1)), mean)  # mirrored or not
    close(mean[0], plain.retrieved_by(images)[0])
    assert (mean[1:] - plain.retrieved_by(images)[1:]).abs().amax(1).min() > 1e-7


def test_switches_of_evaluation_are_no_part_of_the_network():
    """They can change a result, so they are in the key; with their defaults the key is unchanged."""
    run = resolve(data="market1501")
    assert not {"rerank", "flip_features"} & {*run.NETWORK, *run.identity()}
    assert made(rerank=True).outcomes.rerank
    assert not made().outcomes.rerank


def test_amsgrad_is_the_formula():
    """Three updates of one weight in plain Python: Reddi et al. 2018 with Adam's bias corrections, and weight
    decay in the gradient.
    """
    task = made()
    optimizer = task.configure_optimizers()["optimizer"]
    group = optimizer.param_groups[0]
    assert sum(p.numel() for p in group["params"]) == sum(p.numel() for p in task.parameters())
    weight = task.classifier.weight
    value, m, v, most = weight[0, 0].item(), 0.0, 0.0, 0.0
    for t, gradient in enumerate((0.5, -0.01, 0.002), start=1):
        optimizer.zero_grad()
        weight.grad = torch.full_like(weight, gradient)
        optimizer.step()
        g = gradient + 5e-4 * value
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        most = max(most, v)
        value -= 1e-3 * (m / (1 - 0.9**t)) / ((most / (1 - 0.999**t)) ** 0.5 + 1e-8)
        assert weight[0, 0].item() == pytest.approx(value, rel=1e-5)
    assert type(made(optimizer="sgd").configure_optimizers()["optimizer"]) is torch.optim.SGD


# ------------------------------------------------------------ backbones


def test_a_zoos_own_weights_are_taken(tmp_path):
    """As torchvision publishes ResNets: without the adapter's prefix, and without batch counts in older
    files.
    """
    torch.manual_seed(1)
    published = nets.build("torchvision:resnet18", width=None, num_classes=1000).net
    state = {k: v for k, v in published.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "resnet18.pth")
    run = reid(net="torchvision:resnet18", backbone_checkpoint=str(tmp_path / "resnet18.pth"))
    net = build_net(run, 4)
    assert "a state dict" in checkpoint.load_backbone(net.backbone, run)
    for key, value in net.backbone.net.state_dict().items():
        assert torch.equal(value, published.state_dict()[key]), key
    del state["layer4.1.conv2.weight"]
    torch.save(state, tmp_path / "broken.pth")
    run = reid(net="torchvision:resnet18", backbone_checkpoint=str(tmp_path / "broken.pth"))
    with pytest.raises(UserError, match=r"the first key that differs is net.layer4.1.conv2.weight"):
        checkpoint.load_backbone(net.backbone, run)
