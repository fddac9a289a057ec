"""The networks: parity with the release and with torchvision, any input size, the pyramid, errors."""

import json
import math

import numpy as np
import pytest
import torch
import torchvision
from conftest import REFERENCE, released_state

from hbo import cost, nets
from hbo.block import Block
from hbo.errors import UserError
from hbo.nets import build, published_divisor, round_channels
from hbo.runs.weights import load_released

CASES = json.loads((REFERENCE / "forward.json").read_text())


def reference_input(r: int) -> torch.Tensor:
    i = np.arange(2 * 3 * r * r, dtype=np.float64).reshape(2, 3, r, r)
    return torch.from_numpy(np.sin(0.37 * i + ((i * i * 1e-4) % 6.283)).astype(np.float32))


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"width{c['width']}-div{c['divisor']}-k{c['k']}")
def test_parity_with_the_release(case):
    net = build("hbonet", Block(k=case["k"]), case["width"], case["divisor"])
    assert cost.parameters(net) == case["params"]
    assert cost.macs(net, case["resolution"]) == case["macs"]
    state = released_state(f"width{case['width']}_div{case['divisor']}_k{case['k']}")
    for mode in ("eval", "train"):
        load_released(net, state).train(mode == "train")
        with torch.no_grad():
            logits = net(reference_input(case["resolution"]))
        error = (logits[:, :8] - torch.tensor(case[f"{mode}_logits"])).abs().max() / logits.abs().max()
        assert error < 1e-4
        if mode == "eval":
            torch.testing.assert_close(logits.norm(dim=1), torch.tensor(case["eval_l2"]), rtol=1e-5, atol=0)


@pytest.mark.parametrize(("width", "divisor"), [(1.0, None), (0.5, None), (0.1, 4)])
def test_mobilenetv2_is_torchvisions(width, divisor):
    ours = build("mobilenetv2", width=width).eval()
    theirs = torchvision.models.MobileNetV2(width_mult=width, round_nearest=divisor or 8).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(ours(x), theirs(x))


@pytest.mark.parametrize("width", [1.0, 0.35])
def test_our_table_of_mobilenetv2_is_torchvisions_net(width):
    """The table that `mobilenetv2_hbo` changes, without changes."""
    table = nets.Net(nets.MOBILENETV2, Block(), width, 8, 1000)
    theirs = build("mobilenetv2", width=width)
    assert [p.shape for p in table.parameters()] == [p.shape for p in theirs.parameters()]
    table.load_state_dict(dict(zip(table.state_dict(), theirs.state_dict().values(), strict=True)))
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(table.eval()(x), theirs.eval()(x))


@pytest.mark.parametrize("net", list(nets.TABLES))
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (300, 300), (256, 128)])
def test_any_input_size_from_32_works(net, size):
    has_block = net in ("hbonet", "mobilenetv2_hbo")
    for k in (0, 1, 2, 3) if has_block else (1,):
        model = build(net, Block(k=k), width=0.1, num_classes=5).eval()
        x = torch.randn(1, 3, *size)
        with torch.no_grad():
            assert model(x).shape == (1, 5)
            maps = model.pyramid(x)
        for stride in (16, 32):
            assert maps[stride].shape[2:] == (math.ceil(size[0] / stride), math.ceil(size[1] / stride))


def test_too_small_an_input_names_the_stage():
    with pytest.raises(UserError, match="stage 3"):
        build(block=Block(k=3)).eval()(torch.randn(1, 3, 16, 16))
    assert build(block=Block(k=0)).eval()(torch.randn(1, 3, 16, 16)).shape == (1, 1000)  # nothing to contract


def test_pyramid_is_the_expansion_layer_and_the_heads_convolution():
    net = build("hbonet", width=1.0).eval()
    x = torch.randn(1, 3, 64, 64)
    maps = net.pyramid(x)
    before = net.features[:16](x)
    torch.testing.assert_close(maps[16], net.features[16].expand(before))
    torch.testing.assert_close(maps[32], net.head(net.features(x)))
    assert maps[16].shape[1] == 144 * 6
    mobile = build("mobilenetv2", width=1.0).eval()
    assert {s: m.shape[1] for s, m in mobile.pyramid(x).items() if s in (16, 32)} == {16: 576, 32: 1280}


@pytest.mark.parametrize(
    "net",
    [
        "torchvision:shufflenet_v2_x1_5",
        "torchvision:googlenet",
        "timm:mobilenetv3_small_050",
        "pytorchcv:igcv3_w1",
    ],
)
def test_other_networks_work_through_the_adapter(net):
    model = build(net, num_classes=7).eval()
    x = torch.randn(1, 3, 96, 128)
    assert model(x).shape == (1, 7)
    if "googlenet" not in net:  # it rounds its maps down
        assert {s: tuple(m.shape[2:]) for s, m in model.pyramid(x).items() if s > 8} == {
            16: (6, 8),
            32: (3, 4),
        }


def test_pyramid_of_a_net_that_calls_one_module_at_two_strides():
    """The convolutions of a ResNet block share a ReLU, which is first called at the previous stride."""
    model = build("torchvision:resnet50", num_classes=2).eval()
    maps = model.pyramid(torch.randn(1, 3, 96, 64))
    assert {s: tuple(m.shape[2:]) for s, m in maps.items() if s > 2} == {
        4: (24, 16),
        8: (12, 8),
        16: (6, 4),
        32: (3, 2),
    }


def test_a_rivals_pooling_at_224_is_its_own():
    from pytorchcv.model_provider import get_model

    theirs = get_model("igcv3_wd4", num_classes=3).eval()
    ours = build("pytorchcv:igcv3_wd4", num_classes=3).eval()
    ours.net.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 3, 224, 224)
    torch.testing.assert_close(ours(x), theirs(x))


def test_first_stage_as_printed():
    released, printed = (build("hbonet", width=1.0, first_stage=stage) for stage in ("release", "paper"))
    assert [b.block for b in released.built[:2]] == ["ir", "hb"]
    assert [b.block for b in printed.built[:2]] == ["hb", "hb"]
    assert (printed.built[0].concat_channels, printed.built[0].cout) == (12, 24)


def test_variants_separate_the_block_from_the_stage_widths():
    plain, inverted = build("hbonet"), build("hbonet_ir")
    assert [(b.cin, b.cout, b.stride) for b in plain.built] == [
        (b.cin, b.cout, b.stride) for b in inverted.built
    ]
    assert {b.block for b in inverted.built} == {"ir"}
    mixed = build("mobilenetv2_hbo", Block(k=3), width=1.0)
    assert {b.stage for b in mixed.built if b.block == "hb"} == {2, 3, 4, 5, 6}
    assert [b.depth for b in mixed.built if b.block == "hb"] == [3] * 2 + [2] * 3 + [1] * 7 + [0] * 3


@pytest.mark.parametrize("k", [0, 1, 2, 3])
def test_depths_are_limited_by_the_stages_caps(k):
    depths = {b.stage: b.depth for b in build(block=Block(k=k)).built if b.block == "hb"}
    assert depths == {2: min(k, 3), 3: min(k, 3), 4: min(k, 2), 5: min(k, 1), 6: min(k, 1)}


def test_channels_are_rounded_as_in_the_release():
    assert [round_channels(c, 8) for c in (100, 3, 8, 12, 11, 20, 18.9)] == [104, 8, 8, 16, 16, 24, 24]
    assert round_channels(9, 2) == 10
    from torchvision.models._utils import _make_divisible

    for divisor in (1, 2, 4, 8):
        for tenths in range(1, 4000, 7):
            assert round_channels(tenths / 10, divisor) == _make_divisible(tenths / 10, divisor)


def test_published_divisors():
    assert [published_divisor("hbonet", w) for w in (1.0, 0.8, 0.5, 0.35, 0.25, 0.1)] == [8, 8, 2, 8, 2, 4]
    assert [published_divisor("mobilenetv2", w) for w in (1.0, 0.5, 0.25, 0.1)] == [8, 8, 8, 4]


def test_initial_weights_have_the_releases_variance():
    torch.manual_seed(0)
    net = build("hbonet", width=1.0)
    conv = net.head[0]
    assert conv.weight.std().item() == pytest.approx((2 / 1600) ** 0.5, rel=0.02)
    assert net.classifier.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert net.classifier.bias.abs().max() == 0


@pytest.mark.parametrize(
    ("kwargs", "word"),
    [
        ({"net": "hbonnet"}, "did you mean hbonet"),
        ({"net": "torchvision:resnet19"}, "resnet18"),
        ({"net": "torchvision:fcn_resnet50"}, "no classification network"),
        ({"block": Block(k=4)}, "would be that of k=3"),
        ({"net": "mobilenetv2", "block": Block(k=2)}, "would change nothing"),
        ({"net": "hbonet_ir", "block": Block(upsample="bilinear")}, "would change nothing"),
        ({"net": "torchvision:resnet18", "width": 0.5}, "a fixed width"),
        ({"net": "mobilenetv2", "first_stage": "paper"}, "first_stage"),
        (
            {"net": "torchvision:resnet18", "first_stage": "paper"},
            "first_stage=paper: torchvision:resnet18 has no table",
        ),
        ({"net": "torchvision:resnet18", "divisor": 8}, "divisor=8: torchvision:resnet18 has no table"),
        ({"width": 0.0}, "positive"),
    ],
)
def test_impossible_networks_are_errors_with_the_reason(kwargs, word):
    with pytest.raises(UserError) as error:
        build(**kwargs)
    assert word in str(error.value)
