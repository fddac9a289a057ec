"""hbo.layers and hbo.depthwise against PyTorch's own modules, in double precision."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hbo.block import Block, HarmoniousBottleneck, conv_norm
from hbo.depthwise import Depthwise5, takes, weight_gradient
from hbo.layers import HalvingPool, Layers


def _map(*shape: int, seed: int = 0) -> torch.Tensor:
    x = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return x.contiguous(memory_format=torch.channels_last).requires_grad_()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(2, 3, 7, 9), (2, 4, 8, 8), (1, 5, 1, 11), (3, 4, 6, 10), (2, 6, 5, 4)])
def test_the_gradients_of_5x5_from_narrower_kernels(shape, stride):
    x, weight = _map(*shape), torch.randn(shape[1], 1, 5, 5, dtype=torch.float64, requires_grad=True)
    plain = F.conv2d(x, weight, stride=stride, padding=2, groups=shape[1])
    grad = _map(*plain.shape, seed=1).detach()
    quick = Depthwise5.apply(x, weight, stride)
    assert quick.equal(plain)
    for a, b in zip(torch.autograd.grad(quick, [x, weight], grad), torch.autograd.grad(plain, [x, weight], grad), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_it_is_taken_for_5x5_depthwise_alone():
    assert takes(nn.Conv2d(4, 4, 5, 2, 2, groups=4, bias=False))
    others = [
        nn.Conv2d(4, 4, 5, 1, 2, groups=4),  # a bias
        nn.Conv2d(4, 4, 3, 1, 1, groups=4, bias=False),
        nn.Conv2d(4, 4, 5, 1, 2, bias=False),  # not depthwise
        nn.Conv2d(4, 4, 5, 1, 4, dilation=2, groups=4, bias=False),
    ]
    assert not any(map(takes, others))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(8, 8, 56, 56), (4, 24, 28, 27), (2, 5, 9, 8)])
def test_a_gradient_of_float32_is_within_rounding_of_the_truth(shape, stride):
    """The quick kernels are of float32; double precision has others."""
    x, weight = _map(*shape), torch.zeros(shape[1], 1, 5, 5, dtype=torch.float64, requires_grad=True)
    out = F.conv2d(x, weight, stride=stride, padding=2, groups=shape[1])
    g = _map(*out.shape, seed=1).detach()
    (truth,) = torch.autograd.grad(out, weight, g)
    x, single = x.detach().float(), torch.zeros(shape[1], 1, 5, 5, requires_grad=True)
    (theirs,) = torch.autograd.grad(F.conv2d(x, single, stride=stride, padding=2, groups=shape[1]), single, g.float())
    ours = weight_gradient(g.float(), x, stride)
    assert (ours - truth).abs().max() < 1e-5 * truth.abs().max()
    assert (theirs - truth).abs().max() < 1e-5 * truth.abs().max()  # and no nearer by much


@pytest.mark.parametrize("shape", [(2, 3, 6, 8), (2, 3, 7, 8), (1, 4, 5, 5)])
def test_pooling_has_poolings_gradient(shape):
    x, pool = _map(*shape), nn.AvgPool2d(2, ceil_mode=True)
    assert HalvingPool()(x).equal(pool(x))
    grad = _map(*pool(x).shape, seed=1).detach()
    torch.testing.assert_close(*(torch.autograd.grad(m(x), x, grad)[0] for m in (HalvingPool(), pool)), rtol=0, atol=1e-15)


@pytest.mark.parametrize("k", [0, 1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("scheme", ["release", "uniform", "paper"])
def test_a_block_trains_as_its_modules_one_by_one(k, stride, scheme, monkeypatch):
    torch.manual_seed(0)
    block = HarmoniousBottleneck(6, 10, stride, 2, Block(k=k, scheme=scheme)).double()
    block = block.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    x, found = _map(2, 6, 24, 20), []
    for plain in (False, True):
        if plain:
            monkeypatch.setattr(Layers, "forward", nn.Sequential.forward)
        out = block(x)
        found.append([out, *torch.autograd.grad((out**3).sum(), [x, *block.parameters()])])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


def test_hooks_on_its_modules_are_called_in_training():
    layers, seen = conv_norm(3, 5), []
    layers[2].register_forward_hook(lambda *_: seen.append(1))
    layers(_map(2, 3, 8, 8).float())
    assert seen


def test_a_batch_norm_in_evaluation_mode_stays_as_it_is_within_a_network_in_training():
    layers = conv_norm(3, 8, 3).double().train()
    norm = next(m for m in layers if isinstance(m, nn.BatchNorm2d))
    norm.running_mean.fill_(0.3)
    norm.eval()
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    x = _map(2, 3, 6, 6)
    assert layers(x).equal(nn.Sequential(*layers)(x))
    assert all(value.equal(before[name]) for name, value in norm.state_dict().items())
