"""Costs: the paper's 39 rows, torch's own counter as oracle, and section 3.2's law."""

import json

import pytest
import torch
from conftest import call, published
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hbo import cost
from hbo.block import Block, HarmoniousBottleneck
from hbo.errors import UserError
from hbo.nets import build

ROWS = published(2, 3, 4, 5, 6)


def test_there_are_39_published_costs():
    assert len(ROWS) == 39


@pytest.mark.parametrize("row", ROWS, ids=lambda r: f"table{r['table']}-{r['model']}-{r['width']}-{r['resolution']}-k{r['k']}")
def test_published_multiply_adds(row):
    net = build(row["model"], Block(k=int(row["k"] or 1)), float(row["width"]), int(row["divisor"]) if row["divisor"] else None)
    assert abs(cost.macs(net, int(row["resolution"])) / 1e6 - float(row["mmacs"])) <= 1


@pytest.mark.parametrize("net", ["hbonet", "mobilenetv2", "torchvision:shufflenet_v2_x1_0", "torchvision:swin_t"])
@pytest.mark.parametrize("size", [224, (160, 224)])
def test_torchs_counter_agrees(net, size):
    model = build(net)
    shape = (size, size) if isinstance(size, int) else size
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        model.eval()(torch.zeros(1, 3, *shape))
    assert cost.macs(model, size) == flops.get_total_flops() / 2


@pytest.mark.parametrize("upsample", ["nearest", "bilinear", "transposed", "pixelshuffle"])
def test_the_meta_device_agrees(upsample):
    """There torch's own kernels give the shapes; on the CPU the convolutions are passed over by ours."""
    here = build(block=Block(k=3, upsample=upsample))
    with torch.device("meta"):
        there = build(block=Block(k=3, upsample=upsample))
    for size in (224, 97):
        assert cost.count(here, size) == cost.count(there, size)


class Counted(nn.Sequential):
    """Two convolutions and what the paper does not count, its costs by hand."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 4, 3, 2, 1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Upsample(scale_factor=2),
            nn.ConvTranspose2d(4, 2, 4, 2, 1),
        )


def test_by_hand():
    total = cost.count(Counted(), (8, 6))["total"]
    assert total.macs == 4 * 3 * 3 * 3 * (4 * 3) + 4 * 2 * 4 * 4 * (8 * 6)
    assert total.params == 4 * 27 + 4 + 8 + 4 * 2 * 16 + 2
    assert total.activation_bytes == 4 * (4 * 4 * 3 + 2 * 16 * 12)
    assert total.elementwise == 2 * (4 * 4 * 3) + 4 * 8 * 6  # norm, activation, upsampling


def test_stages_add_up_and_the_model_is_left_alone():
    model = build(block=Block(k=2)).train()
    before = [b.clone() for b in model.buffers()]
    costs = cost.count(model, 96)
    total = costs.pop("total")
    assert list(costs) == ["stem", *(f"stage {i}" for i in range(1, 10)), "head", "classifier"]
    assert sum(c.macs for c in costs.values()) == total.macs
    assert sum(c.params for c in costs.values()) == total.params == sum(p.numel() for p in model.parameters())
    assert sum(c.activation_bytes for c in costs.values()) == total.activation_bytes
    assert model.training
    assert all(torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True))


def test_contraction_divides_the_cost_of_what_it_wraps():
    """Section 3.2: blocks of cost C, wrapped in a contraction by s, cost about C / s^2 plus the depthwise convolutions."""
    channels, size = 64, 64
    flat = HarmoniousBottleneck(channels, channels, 1, 2, Block(k=0, concat_ratio=0.0))
    deep = HarmoniousBottleneck(channels, channels, 1, 2, Block(k=1, concat_ratio=0.0, scheme="uniform"))
    wrap = lambda block: nn.Sequential(nn.Conv2d(3, channels, 1), block)
    first = channels * 3 * size**2
    inner = cost.macs(wrap(flat), size) - first - 25 * channels * size**2
    outer = cost.macs(wrap(deep), size) - first
    down, last = 25 * channels * (size // 2) ** 2, 25 * channels * size**2
    assert outer == inner // 4 + down + last


def test_a_size_that_a_network_cannot_take_is_refused():
    with pytest.raises(UserError, match="stage"):
        cost.macs(build(block=Block(k=3)), 16)
    with pytest.raises(UserError, match="resolution=16 x 16"):
        cost.macs(build("torchvision:alexnet"), 16)


def test_command_line_is_table_6_and_resolves_like_a_run(capsys):
    def ask(*argv: str) -> dict:
        cost.main([*argv, "--json"])
        return json.loads(capsys.readouterr().out)

    for row in published(6):
        out = ask("--k", row["k"])
        assert (out["width"], out["divisor"]) == (0.25, 8)
        assert abs(out["macs"] / 1e6 - float(row["mmacs"])) <= 1
        assert len([b for b in out["blocks"] if b["block"] == "hb"]) == 13
    out = ask("--width", "0.25")  # an explicit width drops the recipe's divisor
    assert (out["divisor"], round(out["macs"] / 1e6)) == (2, 37)
    assert ask("--data", "elpv")["num_classes"] == 2
    text = call("hbo.cost", "--k", 2, "--width", 0.25)[0]
    assert "stage 9" in text
    assert "total" in text
