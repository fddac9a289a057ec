"""The block: laws of each switch, and tests derived from the fields of `Block`."""

import dataclasses
import typing

import pytest
import torch
import torch.nn.functional as F

from hbo.block import Block, BlurPool, HarmoniousBottleneck, enlarge
from hbo.errors import UserError


def allowed(name: str, value: object) -> bool:
    try:
        Block(**{name: value})
    except UserError:
        return False
    return True


def choices(field: dataclasses.Field) -> list:
    """Every value of a switch: its `Literal`'s values, both booleans, or numbers near the default that
    `Block` allows.
    """
    if typing.get_origin(field.type) is typing.Literal:
        return list(typing.get_args(field.type))
    if field.type is bool:
        return [True, False]
    d = field.default
    return [
        v
        for v in ((d - 2, d - 1, d, d + 1, d + 2) if field.type is int else (0.0, d / 2, d, d * 1.5))
        if allowed(field.name, v)
    ]


CASES = [(f.name, value) for f in dataclasses.fields(Block) for value in choices(f)]
BASES = [Block(k=k) for k in (1, 2, 3)]  # some switches have no effect at some k


def make(block: Block, stride: int = 1, cin: int = 6, cout: int = 8) -> HarmoniousBottleneck:
    torch.manual_seed(0)
    return HarmoniousBottleneck(cin, cout, stride, 2, block).eval()


@pytest.mark.parametrize(("name", "value"), CASES)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(16, 16), (17, 23), (9, 12)])
def test_every_value_runs_forward_and_backward(name, value, stride, size):
    for base in BASES:
        module = make(dataclasses.replace(base, **{name: value}), stride).train()
        x = torch.randn(2, 6, *size, requires_grad=True)
        y = module(x)
        assert y.shape == (2, 8, -(-size[0] // stride), -(-size[1] // stride))
        y.square().sum().backward()
        assert x.grad is not None
        assert x.grad.abs().sum() > 0
        for key, parameter in module.named_parameters():
            assert parameter.grad is not None, f"{key} has no use"


def differ(usual: HarmoniousBottleneck, switched: HarmoniousBottleneck, x: torch.Tensor) -> bool:
    """Whether parameters or, with the same parameters, outputs differ."""
    shapes = [{k: v.shape for k, v in m.state_dict().items()} for m in (usual, switched)]
    if shapes[0] != shapes[1]:
        return True
    switched.load_state_dict(usual.state_dict())
    return not torch.equal(usual(x), switched(x))


@pytest.mark.parametrize(("name", "value"), [case for case in CASES if case[1] != getattr(Block(), case[0])])
def test_every_value_changes_the_network(name, value):
    """A switch that is parsed but ignored fails here: it must change the parameters or the output."""
    x = 20 * torch.randn(2, 6, 16, 16)  # beyond 6, where ReLU6 is not ReLU

    assert any(differ(make(base), make(dataclasses.replace(base, **{name: value})), x) for base in BASES), (
        f"{name}={value} changes neither parameters nor output: does HarmoniousBottleneck use it? If the value"
        " makes no sense, Block.__post_init__ must refuse it"
    )


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"k": -1}, "fewer than 0"),
        ({"k": 1.5}, "whole number"),
        ({"concat_ratio": 1.0}, "[0, 1)"),
        ({"concat_ratio": -0.1}, "[0, 1)"),
        ({"kernel": 4}, "odd"),
        ({"kernel": -3}, "odd"),
        ({"upsample": "cubic"}, "bicubic"),
        ({"residual": 1}, "true or false"),
    ],
)
def test_impossible_values_are_errors_with_the_reason(fields, word):
    with pytest.raises(UserError) as error:
        Block(**fields)
    assert word in str(error.value)
    assert str(next(iter(fields.values()))) in str(error.value)


def test_k_0_contracts_nothing_and_is_one_net_in_every_scheme_and_upsampling():
    x = torch.randn(2, 6, 15, 15)
    for stride in (1, 2):
        usual = make(Block(k=0), stride)
        assert all(m.stride == (1, 1) for m in usual.modules() if isinstance(m, torch.nn.Conv2d)) == (
            stride == 1
        )
        for field in dataclasses.fields(Block):
            if field.name in ("scheme", "upsample", "contract"):
                for value in choices(field):
                    other = make(dataclasses.replace(Block(k=0), **{field.name: value}), stride)
                    other.load_state_dict(usual.state_dict())
                    assert torch.equal(usual(x), other(x)), (field.name, value)


def test_uniform_treats_every_k_and_stride_alike_where_the_release_does_not():
    for k in (0, 1, 2, 3):
        for stride in (1, 2):
            module = make(Block(k=k, scheme="uniform"), stride)
            assert module.residual_channels == 4
            assert isinstance(module.depthwise[-1], torch.nn.ReLU6)
            assert not isinstance(module.smooth, torch.nn.Identity)
    bare = make(Block(k=1), stride=2)
    assert bare.residual_channels == 0
    assert isinstance(bare.smooth, torch.nn.Identity)


@pytest.mark.parametrize(("scheme", "k", "expected"), [
    # after every pointwise convolution; after the depthwise one only at k = 1
    ("release", 1, 2), ("release", 2, 2), ("release", 3, 3),
    ("uniform", 1, 2), ("uniform", 2, 3), ("uniform", 3, 4),
    ("paper", 1, 2), ("paper", 2, 2), ("paper", 3, 2),  # the first and the last of a cascade (section 4.1)
])  # fmt: skip
def test_non_linearities_of_a_scheme(scheme, k, expected):
    assert sum(isinstance(m, torch.nn.ReLU6) for m in make(Block(k=k, scheme=scheme)).modules()) == expected


@pytest.mark.parametrize(("ratio", "cin", "cout", "concat"), [
    (0.5, 8, 8, 4), (0.5, 9, 9, 5), (0.0, 8, 8, 0), (0.25, 8, 8, 2), (0.3, 10, 10, 3),
    (0.75, 36, 72, 36),  # wants 54, but the input has 36
    (0.99, 8, 8, 7),  # at least one channel must be computed
])  # fmt: skip
def test_channels_drawn_and_computed(ratio, cin, cout, concat):
    module = make(Block(concat_ratio=ratio), cin=cin, cout=cout)
    assert module.concat_channels == concat
    assert module.main_channels == cout - concat
    assert module.residual_channels == min(cout - concat, cin)
    x = torch.randn(1, cin, 8, 8)
    # The last channels of the input come first.
    assert torch.equal(module(x)[:, :concat], x[:, cin - concat :])


def test_residual_joins_the_first_channels_of_the_input():
    on, off = make(Block(scheme="uniform")), make(Block(scheme="uniform", residual=False))
    off.load_state_dict(on.state_dict())
    for module in (on, off):
        module.smooth = torch.nn.Identity()
    x = torch.randn(2, 6, 8, 8)
    gained = on(x)[:, on.concat_channels :] - off(x)[:, off.concat_channels :]
    torch.testing.assert_close(gained, x[:, : on.main_channels])


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
def test_upsampling_is_torch_s(mode):
    x = torch.randn(1, 3, 5, 5)
    expected = F.interpolate(x, size=(20, 20), mode=mode, align_corners=None if mode == "nearest" else False)
    assert torch.equal(enlarge(Block(upsample=mode), 3, 4)(x), expected)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_transposed_starts_as_bilinear(factor):
    x = torch.randn(1, 3, 6, 6)
    # Borders differ: one clamps, the other pads with zeros.
    inner = (
        ...,
        slice(factor, -factor),
        slice(factor, -factor),
    )
    torch.testing.assert_close(
        enlarge(Block(upsample="transposed"), 3, factor)(x)[inner],
        enlarge(Block(upsample="bilinear"), 3, factor)(x)[inner],
    )


def test_pixelshuffle_is_torch_s():
    x = torch.randn(2, 3 * 16, 5, 4)
    assert torch.equal(enlarge(Block(upsample="pixelshuffle"), 3, 4)(x), F.pixel_shuffle(x, 4))


def test_blur_keeps_a_constant_map_and_is_binomial():
    blur = BlurPool(2, 5)
    torch.testing.assert_close(blur(torch.full((1, 2, 7, 9), 3.0)), torch.full((1, 2, 4, 5), 3.0))
    point = torch.zeros(1, 2, 9, 9)
    point[..., 4, 4] = 256
    assert blur(point)[0, 0, 2].tolist() == [0, 6 * 1, 6 * 6, 6 * 1, 0]


def test_a_map_too_small_to_contract_is_an_error():
    module = HarmoniousBottleneck(4, 4, 1, 2, Block(k=3), name="stage 3").eval()
    assert module(torch.randn(1, 4, 5, 5)).shape == (1, 4, 5, 5)
    with pytest.raises(UserError, match=r"stage 3: its 4 x 9 map is too small for 3 contraction units"):
        module(torch.randn(1, 4, 4, 9))
