"""hbo.kernels.depthwise, and blocks of quick modules, against PyTorch's own modules in double precision."""

import pytest
import torch
import torch.nn.functional as F
from quick import plain, taken
from torch import nn

from hbo.block import Block, HarmoniousBottleneck, conv_norm, take_channels
from hbo.kernels.depthwise import Depthwise, _Depthwise5, weight_gradient


def _map(*shape: int, seed: int = 0) -> torch.Tensor:
    x = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return x.contiguous(memory_format=torch.channels_last).requires_grad_()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(2, 3, 7, 9), (2, 4, 8, 8), (1, 5, 1, 11), (3, 4, 6, 10), (2, 6, 5, 4)])
def test_the_gradients_of_5x5_from_narrower_kernels(shape, stride):
    x, weight = _map(*shape), torch.randn(shape[1], 1, 5, 5, dtype=torch.float64, requires_grad=True)
    plain = F.conv2d(x, weight, stride=stride, padding=2, groups=shape[1])
    grad = _map(*plain.shape, seed=1).detach()
    quick = _Depthwise5.apply(x, weight, stride)
    assert quick.equal(plain)
    for a, b in zip(
        torch.autograd.grad(quick, [x, weight], grad),
        torch.autograd.grad(plain, [x, weight], grad),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def _with(conv: nn.Module, **attributes: object) -> nn.Module:
    for name, value in attributes.items():
        setattr(conv, name, value)
    return conv


WIDE = (2, 4, 9, 8)


@pytest.mark.parametrize("stride", [1, 2])
def test_5x5_uses_the_fast_gradients_in_training(stride):
    assert taken(Depthwise(4, 5, stride).double()(_map(*WIDE))) == {"_Depthwise5": 1}


@pytest.mark.parametrize(("conv", "shape"), [
    (Depthwise(4, 3), WIDE),
    (Depthwise(4, 7), WIDE),
    (Depthwise(4, 5, 4), WIDE),
    (Depthwise(4, 5), (2, 4, 8, 7)),  # too narrow to be faster
    (Depthwise(4, 5).eval(), WIDE),
    (Depthwise(1, 5), (2, 1, 9, 8)),  # one channel: PyTorch chooses its memory format
    (_with(Depthwise(4, 5), padding_mode="circular", _reversed_padding_repeated_twice=[2] * 4), WIDE),
    (_with(Depthwise(4, 5), dilation=(2, 2), padding=(4, 4)), WIDE),
    (_with(Depthwise(4, 5), bias=nn.Parameter(torch.ones(4))), WIDE),
])  # fmt: skip
def test_other_convolutions_use_pytorchs(conv, shape):
    conv, x = conv.double(), _map(*shape)
    out = conv(x)
    assert not taken(out)
    assert out.equal(plain(conv)(x))


def test_other_layouts_precisions_or_no_gradient_use_pytorchs():
    conv = Depthwise(4, 5)
    x = _map(*WIDE).float()
    assert taken(conv(x))
    assert not taken(conv(x.contiguous()))
    with torch.autocast("cpu", torch.bfloat16):
        assert not taken(conv(x))
    assert not taken(conv.bfloat16()(x.bfloat16()))
    with torch.no_grad():
        assert conv.float()(x).grad_fn is None


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(8, 8, 56, 56), (4, 24, 28, 27), (2, 5, 9, 8)])
def test_a_float32_gradient_is_exact_within_rounding(shape, stride):
    """The quick kernels use float32; in double precision other kernels are used."""
    x, weight = _map(*shape), torch.zeros(shape[1], 1, 5, 5, dtype=torch.float64, requires_grad=True)
    out = F.conv2d(x, weight, stride=stride, padding=2, groups=shape[1])
    g = _map(*out.shape, seed=1).detach()
    (truth,) = torch.autograd.grad(out, weight, g)
    x, single = x.detach().float(), torch.zeros(shape[1], 1, 5, 5, requires_grad=True)
    (theirs,) = torch.autograd.grad(
        F.conv2d(x, single, stride=stride, padding=2, groups=shape[1]), single, g.float()
    )
    ours = weight_gradient(g.float(), x, stride)
    assert (ours - truth).abs().max() < 1e-5 * truth.abs().max()
    assert (theirs - truth).abs().max() < 1e-5 * truth.abs().max()  # PyTorch's is not much closer


@pytest.mark.parametrize(("start", "stop"), [(0, 3), (5, 7), (1, 7), (2, 5)])
def test_a_slice_of_channels_has_a_gradient_in_the_maps_memory_order(start, stop):
    x = _map(2, 7, 3, 4)
    out = take_channels(x, start, stop)
    assert out.equal(x[:, start:stop])
    grads = [torch.autograd.grad((part**2).sum(), x)[0] for part in (out, x[:, start:stop])]
    assert grads[0].equal(grads[1])
    assert grads[0].is_contiguous(memory_format=torch.channels_last)
    assert not grads[1].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("k", [0, 1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("scheme", ["release", "uniform", "paper"])
def test_a_block_trains_as_with_pytorch_s_own_modules(k, stride, scheme):
    torch.manual_seed(0)
    block = HarmoniousBottleneck(6, 10, stride, 2, Block(k=k, scheme=scheme)).double()
    block = block.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    x, found = _map(2, 6, 24, 20), []
    for net in (block, plain(block)):
        out = net(x)
        found.append([out, *torch.autograd.grad((out**3).sum(), [x, *net.parameters()])])
        # Each has fewer channels than a register.
        norms = sum(isinstance(m, nn.BatchNorm2d) for m in net.modules())
        # The third halving's map has too few columns.
        wide = min(k, 2) + (not isinstance(net.smooth, nn.Identity))
        quick = {"_Normalise": norms, "_Depthwise5": wide} if net is block else {}
        assert taken(out) == {name: n for name, n in quick.items() if n}
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


def test_a_batch_norm_in_evaluation_mode_stays_as_it_is_within_a_network_in_training():
    layers = conv_norm(3, 8, 3).double().train()
    norm = next(m for m in layers if isinstance(m, nn.BatchNorm2d))
    norm.running_mean.fill_(0.3)
    norm.eval()
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    x = _map(2, 3, 6, 6)
    assert layers(x).equal(plain(layers)(x))
    assert not taken(layers(x))
    assert all(value.equal(before[name]) for name, value in norm.state_dict().items())
