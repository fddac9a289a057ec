"""hbo.deploy: the same logits as the module's, for every value of every switch."""

import copy
import dataclasses

import pytest
import torch
from test_block import CASES
from torch import nn

from hbo import nets
from hbo.block import Block
from hbo.deploy import deploy


def shuffled(net: nn.Module) -> nn.Module:
    """Batch norms as after a training that was none: fresh ones would make their folding trivially right."""
    draw = torch.Generator().manual_seed(3)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=draw)
            nn.init.normal_(module.bias, 0, 0.3, generator=draw)
            nn.init.normal_(module.running_mean, 0, 0.2, generator=draw)
            nn.init.uniform_(module.running_var, 0.5, 2, generator=draw)
    return net.eval()


def far(net: nn.Module, *sizes: tuple[int, int]) -> float:
    """The largest difference over sizes, of the largest logit."""
    before, deployed = copy.deepcopy(net.state_dict()), deploy(net)
    assert all(value.equal(before[name]) for name, value in net.state_dict().items()), "the model was changed"
    found = []
    with torch.no_grad():
        for size in sizes:
            x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
            logits = net(x)
            found.append(float((deployed(x) - logits).abs().max() / logits.abs().max()))
    return max(found)


@pytest.mark.parametrize(("name", "value"), CASES)
@pytest.mark.parametrize("k", [1, 3])
def test_every_value_of_every_switch(name, value, k):
    if (name, value) == ("k", 4) or (name == "k" and k > 1):
        pytest.skip("no net has that k, or it is another case")
    torch.manual_seed(0)
    net = nets.build("hbonet", dataclasses.replace(Block(k=k), **{name: value}), 0.1, num_classes=7)
    assert far(shuffled(net), (75, 90)) < 1e-4


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
    assert far(shuffled(nets.build(name, **fields, width=0.25, num_classes=7)), (64, 64), (75, 90)) < 1e-4


def test_no_batch_norm_is_left():
    deployed = deploy(nets.build("hbonet", Block(k=2), 0.1, num_classes=7))
    assert not [m for m in deployed.modules() if isinstance(m, nn.BatchNorm2d)]
