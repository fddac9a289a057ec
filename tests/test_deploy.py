"""hbo.deploy: the same logits as the module, for every value of every switch."""

import copy
import dataclasses

import pytest
import torch
from test_block import CASES
from torch import nn
from torch.nn.utils import parametrize, prune

from hbo import config, nets
from hbo.block import Block, HarmoniousBottleneck
from hbo.deploy import deploy
from hbo.deploy.bottleneck import Bottleneck
from hbo.deploy.checks import SWITCHES
from hbo.deploy.lanes import LANES, fill
from hbo.errors import UserError
from hbo.tasks.classify.module import Classify

# The switches that deploy at every value.
DEPLOYED = {"k", "scheme", "concat_ratio", "upsample", "residual", "contract", "kernel"}
# relative to the largest logit, in float64; hbo.export checks float32, as deployed, to 1e-4 on real images
LEAST = 1e-9


def shuffled(net: nn.Module) -> nn.Module:
    """Give batch norms values as after training: with fresh ones, folding would be right trivially.

    The statistics are close to those of random images; others would drown the images before the logits.
    """
    draw = torch.Generator().manual_seed(3)
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for module in norms:
        nn.init.uniform_(module.weight, 0.5, 1.5, generator=draw)
        nn.init.normal_(module.bias, 0, 0.3, generator=draw)
        module.momentum = None  # the mean over batches
    with torch.no_grad():
        net.train()(torch.randn(8, 3, 64, 64, generator=draw))
    for module in norms:
        assert module.running_mean is not None
        assert module.running_var is not None
        module.running_mean += (
            0.2 * module.running_var.sqrt() * torch.randn(module.running_mean.shape, generator=draw)
        )
        module.running_var *= 0.7 + 0.6 * torch.rand(module.running_var.shape, generator=draw)
    return net.eval()


def far(net: nn.Module, *sizes: tuple[int, int]) -> float:
    """The largest difference over the sizes, relative to the largest logit."""
    net = net.double()  # in float32 a deep network's rounding errors would hide a small mistake
    before, deployed = copy.deepcopy(net.state_dict()), deploy(net)
    assert all(value.equal(before[name]) for name, value in net.state_dict().items()), "the model was changed"
    found = []
    with torch.no_grad():
        for size in sizes:
            x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
            logits = net(x)
            assert (logits[0] - logits[1]).abs().max() > 0.05 * logits.abs().max(), (
                "the logits do not depend on the image"
            )
            found.append(float((deployed(x) - logits).abs().max() / logits.abs().max()))
    return max(found)


@pytest.mark.parametrize(("name", "value"), CASES)
@pytest.mark.parametrize("k", [1, 3])
def test_every_value_of_every_switch(name, value, k):
    if (name, value) == ("k", 4) or (name == "k" and k > 1):
        pytest.skip("no net has that k, or it is another case")
    torch.manual_seed(0)
    net = nets.build("hbonet", dataclasses.replace(Block(k=k), **{name: value}), 0.1, num_classes=7)
    if name not in DEPLOYED:  # deploy may refuse a new switch, or a module that it brings
        try:
            deploy(net.eval())
        except UserError as error:
            pytest.skip(str(error))
    off = far(shuffled(net), (75, 90))
    assert off < LEAST, (
        f"{name}={value}: the deployed logits differ by {off:.1e} of the largest; hbo/deploy/bottleneck.py"
        " must build this switch, or SWITCHES in hbo/deploy/checks.py must not name it"
    )


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Block)])
def test_deploy_knows_every_switch(name):
    """A new one works with `hbo.export --plain`, so it is skipped, with the words that say what to do."""
    words = (
        f"{name}: hbo.deploy does not know this switch: build it in hbo/deploy/bottleneck.py if forward changes,"
        " then add it to SWITCHES in hbo/deploy/checks.py; until then export it with --plain"
    )
    if name not in DEPLOYED | SWITCHES:
        pytest.skip(words)
    assert name in SWITCHES, words


def test_a_switch_that_deploy_does_not_know_is_refused_unless_it_is_at_its_default():
    """It may change `forward` alone, which no module shows."""

    @dataclasses.dataclass(frozen=True)
    class Switched(Block):
        final_relu: bool = False

    deploy(nets.build("hbonet", Switched(k=2), 0.1, num_classes=7))
    with pytest.raises(UserError) as refused:
        deploy(nets.build("hbonet", Switched(k=2, final_relu=True), 0.1, num_classes=7))
    assert str(refused.value) == (
        "final_relu=True: hbo.deploy does not know this switch; hbo.export --plain exports the network unchanged"
    )


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("mobilenetv2", {}),
        ("hbonet_ir", {}),
        ("mobilenetv2_hbo", {"block": Block(k=2)}),
        ("hbonet", {"first_stage": "paper"}),
        ("hbonet", {"first_stage": "paper", "block": Block(k=3, residual=False)}),
        ("hbonet", {"block": Block(k=3, scheme="uniform", residual=False, upsample="bilinear")}),
    ],
)
def test_every_net(name, fields):
    torch.manual_seed(0)
    assert far(shuffled(nets.build(name, **fields, width=0.25, num_classes=7)), (64, 64), (75, 90)) < LEAST


@pytest.mark.parametrize("divisor", [1, 2, 8])
@pytest.mark.parametrize("width", [0.15, 0.25, 0.6])
def test_every_width(width, divisor):
    """Channels that fill registers, share them, or are odd in number."""
    for block in (Block(), Block(k=2, scheme="uniform", concat_ratio=0.3)):
        torch.manual_seed(0)
        assert far(shuffled(nets.build("hbonet", block, width, divisor, num_classes=7)), (64, 64)) < LEAST


@pytest.mark.parametrize(
    "block", [Block(k=1), Block(k=2), Block(k=3), Block(scheme="uniform"), Block(concat_ratio=0.25)]
)
def test_what_is_left_is_arithmetic_on_full_registers(block):
    deployed = deploy(nets.build("hbonet", block, 0.25, 8))
    graph = torch.export.export(deployed, (torch.zeros(1, 3, 64, 64),)).graph
    names = [str(node.target).split(".")[1] for node in graph.nodes if node.op == "call_function"]
    assert set(names) <= {
        "conv2d",
        "hardtanh",
        "add",
        "upsample_nearest2d",
        "cat",
        "avg_pool2d",
        "flatten",
        "linear",
    }
    # A bottleneck upsamples one map, and only a contraction concatenates two, after its first halving.
    bottlenecks = [m for m in deployed.modules() if isinstance(m, Bottleneck)]
    assert names.count("upsample_nearest2d") <= len(bottlenecks)
    assert names.count("cat") <= len(bottlenecks)
    assert not [m for m in deployed.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(m.out_channels % LANES == 0 for m in deployed.modules() if isinstance(m, nn.Conv2d))


def test_a_part_that_is_only_drawn_goes_through_untouched():
    block = HarmoniousBottleneck(32, 32, 1, 2, Block()).eval()
    deployed = Bottleneck(block, [fill(range(16)), fill(range(16, 32))]).float()
    parts = [torch.randn(1, 16, 8, 8), torch.randn(1, 16, 8, 8)]
    out = deployed(parts)
    assert [part is parts[1] for part in out].count(True) == 1
    assert sorted(channel for lanes in deployed.target for channel in lanes) == list(range(32))


def test_the_model_s_mode_and_gradients_are_left_alone():
    model = nets.build("hbonet", Block(k=2), 0.1, num_classes=7).train()
    deployed = deploy(model)
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(module.training for module in deployed.modules())
    assert not any(parameter.requires_grad for parameter in deployed.parameters())


def test_a_zoo_s_network_has_its_batch_norm_folded_or_is_refused():
    torch.manual_seed(0)
    net = nets.build("torchvision:shufflenet_v2_x0_5", num_classes=7)
    assert far(shuffled(net), (64, 64)) < LEAST
    assert not [m for m in deploy(net).modules() if isinstance(m, nn.BatchNorm2d)]

    class Branches(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(UserError, match=r"Branches cannot be traced.*--plain"):
        deploy(Branches())


def replace(net: nn.Module, kind: type, make) -> None:
    """Replace each module of exactly this type by `make(module)`."""
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is kind:
                setattr(parent, name, make(child))


def at(net: nn.Module, name: str, make) -> None:
    """Replace one module by `make(module)`."""
    parent, _, last = name.rpartition(".")
    setattr(net.get_submodule(parent), last, make(net.get_submodule(name)))


def add_child(net: nn.Module) -> None:
    net.features[3].attention = nn.Identity()


class Louder(HarmoniousBottleneck):
    def forward(self, x):
        return 2 * super().forward(x)


def another_forward(net: nn.Module) -> None:
    net.features[3].__class__ = Louder


def patched_forward(net: nn.Module) -> None:
    net.head[2].forward = lambda x: x


BROKEN = {
    "the activation, everywhere (README's example)": (lambda n: replace(n, nn.ReLU6, lambda _: nn.Hardswish()), "Hardswish"),
    "one activation": (lambda n: at(n, "features.3.contract.4", lambda _: nn.SiLU()), r"features\.3\.contract\.4 is a SiLU"),
    "the stem's activation": (lambda n: at(n, "features.0.2", lambda _: nn.ReLU()), r"features\.0\.2 is a ReLU,"),
    "an activation more": (lambda n: n.features[2].smooth.append(nn.ReLU6()), "ReLU6 where deploy knows Conv2d, BatchNorm2d alone"),
    "an activation after the projection": (lambda n: n.features[3].project.append(nn.ReLU6()), "BatchNorm2d alone"),
    "an activation less": (lambda n: n.features[1].depthwise.pop(2), "where deploy knows Conv2d, BatchNorm2d, ReLU6"),
    "the normalisation": (lambda n: at(n, "head.1", lambda m: nn.GroupNorm(1, m.num_features)), r"head\.1 is a GroupNorm"),
    "no normalisation": (lambda n: at(n, "head.1", lambda _: nn.Identity()), "Conv2d, Identity, ReLU6"),
    "batch norm without weights": (lambda n: at(n, "head.1", lambda m: nn.BatchNorm2d(m.num_features, affine=False)), "affine"),
    "the upsampling": (lambda n: at(n, "features.2.enlarge", lambda _: nn.ZeroPad2d(1)), r"features\.2\.enlarge is a ZeroPad2d"),
    "an upsampling that is a pooling": (lambda n: at(n, "features.2.enlarge", lambda _: nn.AvgPool2d(2, ceil_mode=True)), "as enlarge"),
    "the pooling": (lambda n: at(n, "features.3.pool", lambda _: nn.MaxPool2d(2, ceil_mode=True)), "MaxPool2d as pool of stage 3"),
    "pooling of another size": (lambda n: at(n, "features.3.pool", lambda _: nn.AvgPool2d(4, 2, 1)), "kernel_size=4"),
    "what halves a map": (lambda n: at(n, "features.3.contract.0", lambda _: nn.AvgPool2d(3, 2, 1)), "kernel_size=3"),
    "a layer more in a contraction": (lambda n: n.features[3].contract.append(nn.Identity()), "Identity"),
    "padding": (lambda n: setattr(n.features[1].depthwise[0], "padding_mode", "reflect"), "padding_mode=reflect"),
    "dilation": (lambda n: setattr(n.features[1].depthwise[0], "dilation", (2, 2)), r"dilation=\(2, 2\)"),
    "a convolution in groups": (lambda n: at(n, "features.15.0", lambda m: nn.Conv2d(m.in_channels, m.out_channels, 1, groups=2)), "dense"),
    "a child that the block had not": (add_child, "with attention"),
    "a block with a forward of its own": (another_forward, r"features\.3 is a Louder"),
    "a module with a forward of its own": (patched_forward, r"head\.2 is a ReLU6 with a forward of its own"),
    "the classifier": (lambda n: at(n, "classifier", lambda m: nn.Sequential(m, nn.ReLU6())), "classifier is a Sequential"),
    "a forward hook": (lambda n: n.head[0].register_forward_hook(lambda *_: None), r"head\.0 has a hook"),
    "pruning": (lambda n: prune.l1_unstructured(n.head[0], "weight", 0.5), r"head\.0 has a hook"),
    "a parametrization": (lambda n: parametrize.register_parametrization(n.head[0], "weight", nn.Identity()), "parametrization"),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_what_deploy_does_not_know_it_refuses_by_name(what):
    change, named = BROKEN[what]
    net = nets.build("hbonet", Block(), 0.25, 8, num_classes=7).eval()
    deploy(net)
    change(net)
    with pytest.raises(UserError, match=rf"^deploy: .*{named}.*; hbo\.export --plain exports it$"):
        deploy(net)


@pytest.mark.parametrize("change", [
    lambda net: replace(net, nn.ReLU6, lambda _: nn.Hardswish()),
    lambda net: net.classifier.append(nn.ReLU6()),
    lambda net: net.features[3].conv.append(nn.ReLU6()),
])  # fmt: skip
def test_so_of_mobilenetv2(change):
    net = nets.build("mobilenetv2", width=0.25, num_classes=7).eval()
    change(net)
    with pytest.raises(UserError, match=r"^deploy: .*--plain exports it"):
        deploy(net)


@pytest.mark.parametrize("net", ["hbonet", "mobilenetv2"])
def test_what_only_training_leaves_out_does_not_prevent_deployment(net):
    """Dropout, dropped branches, and the gate of a classifier that was trained first are hooks of ours."""
    fields = {"dropout": 0.3, "drop_path": 0.2, "classifier_epochs": 1, "backbone_checkpoint": "a.ckpt"}
    task = Classify(config.resolve(data="digits", net=net, width=0.25, **fields), 10)
    assert sum(bool(m._forward_hooks or m._forward_pre_hooks) for m in task.net.modules()) > 2
    own = shuffled(task.net).double()
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(deploy(own)(x), own(x), rtol=LEAST, atol=LEAST)


def test_hooks_on_a_zoo_s_network_are_refused():
    net = nets.build("torchvision:shufflenet_v2_x0_5", num_classes=7)
    next(net.children()).register_forward_hook(lambda *_: None)
    with pytest.raises(UserError, match="net has a hook"):
        deploy(net)
