"""Costs: the paper's 39 rows, torch's own counter as oracle, and the law of section 3.2."""

import json
from typing import Any

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


@pytest.mark.parametrize(
    "row", ROWS, ids=lambda r: f"table{r['table']}-{r['model']}-{r['width']}-{r['resolution']}-k{r['k']}"
)
def test_published_multiply_adds(row):
    net = build(
        row["model"],
        Block(k=int(row["k"] or 1)),
        float(row["width"]),
        int(row["divisor"]) if row["divisor"] else None,
    )
    assert abs(cost.macs(net, int(row["resolution"])) / 1e6 - float(row["mmacs"])) <= 1


@pytest.mark.parametrize(
    "net", ["hbonet", "mobilenetv2", "torchvision:shufflenet_v2_x1_0", "torchvision:swin_t"]
)
@pytest.mark.parametrize("size", [224, (160, 224)])
def test_torchs_counter_agrees(net, size):
    model = build(net)
    shape = (size, size) if isinstance(size, int) else size
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        model.eval()(torch.zeros(1, 3, *shape))
    assert cost.macs(model, size) == flops.get_total_flops() / 2


@pytest.mark.parametrize("upsample", ["nearest", "bilinear", "transposed", "pixelshuffle"])
def test_the_meta_device_agrees(upsample):
    """On meta, torch's own kernels give the shapes; on the CPU our counter skips the convolutions."""
    here = build(block=Block(k=3, upsample=upsample))
    with torch.device("meta"):
        there = build(block=Block(k=3, upsample=upsample))
    for size in (224, 97):
        assert cost.count(here, size) == cost.count(there, size)


class Counted(nn.Sequential):
    """Two convolutions and layers that the paper does not count, with costs by hand."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 4, 3, 2, 1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Upsample(scale_factor=2),
            nn.ConvTranspose2d(4, 2, 4, 2, 1),
        )


def test_costs_counted_by_hand():
    total = cost.count(Counted(), (8, 6))["total"]
    assert total.macs == 4 * 3 * 3 * 3 * (4 * 3) + 4 * 2 * 4 * 4 * (8 * 6)
    assert total.params == 4 * 27 + 4 + 8 + 4 * 2 * 16 + 2
    assert total.activation_bytes == 4 * (4 * 4 * 3 + 2 * 16 * 12)
    assert total.elementwise == 2 * (4 * 4 * 3) + 4 * 8 * 6  # norm, activation, upsampling


def test_stages_add_up_and_the_model_is_unchanged():
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


def test_contraction_divides_the_cost_inside_it():
    """Section 3.2: blocks of cost C, wrapped in a contraction by s, cost about C / s^2 plus the depthwise
    convolutions.
    """
    channels, size = 64, 64
    flat = HarmoniousBottleneck(channels, channels, 1, 2, Block(k=0, concat_ratio=0.0))
    deep = HarmoniousBottleneck(channels, channels, 1, 2, Block(k=1, concat_ratio=0.0, scheme="uniform"))
    wrap = lambda block: nn.Sequential(nn.Conv2d(3, channels, 1), block)
    first = channels * 3 * size**2
    inner = cost.macs(wrap(flat), size) - first - 25 * channels * size**2
    outer = cost.macs(wrap(deep), size) - first
    down, last = 25 * channels * (size // 2) ** 2, 25 * channels * size**2
    assert outer == inner // 4 + down + last


def test_a_size_that_a_network_cannot_take_is_an_error():
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


# ------------------------------------------------------------ attention, and other forms of matrix products

# fmt: off
NETWORKS = [
    "alexnet", "vgg11_bn", "resnet18", "resnext50_32x4d", "wide_resnet50_2", "densenet121", "squeezenet1_1",
    "googlenet",
    "inception_v3", "mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2_x0_5", "mnasnet0_5",
    "efficientnet_b0",
    "efficientnet_v2_s", "regnet_x_400mf", "regnet_y_400mf", "convnext_tiny", "vit_b_32", "swin_t",
    "swin_v2_t", "maxvit_t",
]
# fmt: on


@pytest.mark.parametrize("name", NETWORKS)
def test_torchvisions_published_costs(name):
    """`_ops` is in G multiply-adds, to three digits. For ViT, Swin and MaxViT it includes the products of two
    activations.
    """
    from torchvision import models

    facts: Any = models.get_model_weights(name)
    facts = facts.DEFAULT
    aux = {"aux_logits": True, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
    # Regnet computes its table with tensors.
    with torch.device("cpu" if name.startswith("regnet") else "meta"):
        net = models.get_model(name, weights=None, **aux)
    total = cost.count(net, facts.transforms().crop_size[0])["total"]
    assert total.macs / 1e9 == pytest.approx(facts.meta["_ops"], abs=5.1e-4)
    assert bool(total.attention_macs) == name.startswith(("vit", "swin", "maxvit"))


D, L = 16, 7 * 5  # channels, positions of a map


class Multihead(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(D, 4, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0]


class Functional(nn.Module):
    """The same attention with bare weights, and four ways to write a linear layer."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Parameter(torch.randn(D, D)) for _ in range(4))

    def forward(self, x):
        heads = lambda t: t.reshape(len(x), L, 4, D // 4).transpose(1, 2)
        q, k = heads(torch.einsum("bld,ed->ble", x, self.q)), heads(x @ self.k.T)
        v = heads(nn.functional.linear(x, self.v))
        return torch.tensordot(
            nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2), self.out, 1
        )


class Inference(Functional):
    def forward(self, x):
        with torch.inference_mode():
            return super().forward(x)


@pytest.mark.parametrize("attention", [Multihead, Functional, Inference], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_attention_is_counted_however_it_is_written(attention, device):
    stem = nn.Sequential(nn.Conv2d(3, D, 1), nn.Flatten(2))
    net = nn.Sequential(stem, Turned(), attention()).to(device)
    total = cost.count(net, (7, 5))["total"]
    assert total.macs - total.attention_macs == L * 3 * D + 4 * L * D * D
    assert total.attention_macs == 2 * L * L * D
    assert all(weight.requires_grad for weight in net.parameters())
    assert torch.backends.mha.get_fastpath_enabled()
    hooks = nn.modules.module
    assert not hooks._global_forward_pre_hooks  # networks run later are not counted
    assert not hooks._global_forward_hooks


class Turned(nn.Module):
    def forward(self, x):
        return x.transpose(1, 2)  # (B, C, L) -> (B, L, C)


def test_an_encoder_layer_is_its_linear_layers_and_its_products():
    """Torch's fast path does all of it in one operator, which torch's counter does not know."""
    layer = nn.TransformerEncoderLayer(D, 4, 3 * D, batch_first=True)
    total = cost.count(nn.Sequential(nn.Conv2d(3, D, 1), nn.Flatten(2), Turned(), layer), (7, 5))["total"]
    assert total.macs == L * 3 * D + L * (4 + 2 * 3) * D * D + 2 * L * L * D


class Dot(nn.Module):
    """A linear layer with one output, as a matrix-vector product; its weights are standardised, as in some
    networks.
    """

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(D))

    def forward(self, x):
        return x.mean((2, 3)) @ ((self.weight - self.weight.mean()) / self.weight.std())


def test_a_matrix_with_a_vector_is_a_linear_layer():
    total = cost.count(nn.Sequential(nn.Conv2d(3, D, 1), Dot()), 8)["total"]
    assert (total.macs, total.attention_macs) == (64 * 3 * D + D, 0)


class Deformed(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, 3, 3))

    def forward(self, x):
        from torchvision.ops import deform_conv2d

        return deform_conv2d(x, x.new_zeros(len(x), 18, *x.shape[2:]), self.weight, padding=(1, 1))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x):
        return self.rnn(x.flatten(2).transpose(1, 2))[0]


class Bilinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.product = nn.Bilinear(3, 3, 4)

    def forward(self, x):
        x = x.mean((2, 3))
        return self.product(x, x)


def quantised() -> nn.Module:
    layers = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 4))
    return torch.ao.quantization.quantize_dynamic(layers, {nn.Linear})


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(("make", "word"), [
    (Deformed, "deform_conv2d"), (Recurrent, "rnn|lstm"), (Bilinear, "_trilinear"),
    (quantised, "linear_dynamic"),
])  # fmt: skip
def test_an_unknown_operator_is_an_error_that_names_it(make, word):
    with pytest.raises(UserError, match=rf"operator \S*({word})\S*: has weights"):
        cost.count(make(), 8)
