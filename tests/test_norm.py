"""hbo.kernels.norm against PyTorch's own batch norm, in double precision."""

import copy

import pytest
import torch
from quick import taken
from torch import nn
from torch.autograd import gradcheck

from hbo.block import Block
from hbo.kernels.norm import REGISTER, SMALL, BatchNorm, _Normalise
from hbo.nets import build


def _map(*shape: int, dtype=torch.float64) -> torch.Tensor:
    x = 3 + 2 * torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(0))
    return x.contiguous(memory_format=torch.channels_last).requires_grad_()


@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (4, 10, 8, 8), (1, 6, 2, 3), (2, 300, 4, 4), (3, 7, 1, 2)])
def test_the_same_numbers_gradients_and_running_statistics(shape):
    ours, theirs = BatchNorm(shape[1]).double(), nn.BatchNorm2d(shape[1]).double()
    for norm in (ours, theirs):
        nn.init.uniform_(norm.weight, 0.5, 2, generator=torch.Generator().manual_seed(1))
        nn.init.normal_(norm.bias, generator=torch.Generator().manual_seed(2))
    grad = _map(*shape).detach() - 3
    found = []
    for norm in (ours, theirs):
        x = _map(*shape)
        for _ in range(2):
            out = norm.normalise(x) if norm is ours else norm(x)
        found.append([out, *torch.autograd.grad(out, [x, norm.weight, norm.bias], grad), *norm.buffers()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    assert [n for n, _ in ours.state_dict().items()] == [n for n, _ in theirs.state_dict().items()]


def test_the_gradient_equals_the_finite_difference():
    x, weight, bias = (
        _map(2, 3, 4, 5),
        *(torch.rand(3, dtype=torch.float64, requires_grad=True) for _ in range(2)),
    )
    assert gradcheck(lambda *args: _Normalise.apply(*args, 1e-5)[0], (x, weight, bias))


def test_a_constant_channel_far_from_zero_is_normalised_as_pytorch_does():
    """Its variance is zero only up to rounding; the residue is multiplied by 1 / sqrt(eps), as in PyTorch's
    kernel.
    """
    x = torch.full((4, 8, 6, 6), 1000.0).contiguous(memory_format=torch.channels_last)
    assert BatchNorm(8)(x).abs().max() <= max(nn.BatchNorm2d(8)(x).abs().max(), 0.01)


SMALL_MAP = (2, 3, 5, 7)


def test_few_channels_or_large_maps_use_the_fast_path_in_training():
    assert taken(BatchNorm(3).double()(_map(*SMALL_MAP))) == {"_Normalise": 1}
    assert not taken(BatchNorm(REGISTER).double()(_map(2, REGISTER, 5, 7)))
    side = round((SMALL / 2 / REGISTER) ** 0.5)
    assert taken(BatchNorm(REGISTER)(_map(2, REGISTER, side, side, dtype=torch.float32)))


@pytest.mark.parametrize(("norm", "why"), [
    (BatchNorm(3, affine=False), "no weight"),
    (BatchNorm(3, momentum=None), "no momentum: the mean over batches"),
    (BatchNorm(3, track_running_stats=False), "no running statistics"),
    (BatchNorm(3).eval(), "evaluation"),
])  # fmt: skip
def test_without_weight_momentum_or_statistics_pytorchs_is_used(norm, why):
    norm = norm.double()
    theirs = copy.deepcopy(norm)
    theirs.__class__ = nn.BatchNorm2d
    x = _map(*SMALL_MAP)
    for _ in range(2):
        out, expected = norm(x), theirs(x)
    assert not taken(out), why
    assert out.equal(expected)
    for a, b in zip(norm.buffers(), theirs.buffers(), strict=True):
        assert a.equal(b)
    assert torch.autograd.grad(out.sum(), x)[0].equal(torch.autograd.grad(expected.sum(), x)[0])


def test_removed_running_statistics_use_pytorchs():
    norm = BatchNorm(3).double()
    norm.running_mean = norm.running_var = None  # torch.func's advice for batch norm
    assert not taken(norm(_map(*SMALL_MAP)))


def test_other_layouts_precisions_or_shapes_use_pytorchs():
    norm, x = BatchNorm(3), _map(*SMALL_MAP, dtype=torch.float32)
    assert taken(norm(x))
    assert not taken(norm(x.contiguous()))
    with torch.autocast("cpu", torch.bfloat16):
        assert not taken(norm(x))
    assert not taken(norm.bfloat16()(x.bfloat16()))
    norm.float()
    with pytest.raises(ValueError, match="expected 4D input"):
        norm(x[0])
    with pytest.raises(RuntimeError, match="running_mean should contain 4 elements"):
        norm(_map(2, 4, 5, 7, dtype=torch.float32))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        norm(x[:1, :, :1, :1])


@pytest.mark.parametrize("frozen", [("weight",), ("bias",), ("weight", "bias")])
def test_frozen_weights_get_no_gradient_and_the_inputs_gradient_is_right(frozen):
    norm = BatchNorm(3).double()
    theirs = copy.deepcopy(norm)
    theirs.__class__ = nn.BatchNorm2d
    grads = []
    for module in (norm, theirs):
        for name in frozen:
            getattr(module, name).requires_grad_(False)
        x = _map(*SMALL_MAP)
        out = module(x)
        assert bool(taken(out)) == (module is norm)
        (out**3).sum().backward()
        assert all(getattr(module, name).grad is None for name in frozen)
        grads.append([x.grad, *(p.grad for p in module.parameters() if p.requires_grad)])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_network_learns_as_with_pytorchs_own(k):
    """Three updates in double precision: channels last against the plain layout, which uses PyTorch's batch
    norm.
    """
    torch.manual_seed(k)
    plain = build("hbonet", Block(k=k), 0.25, 8, num_classes=5).double()
    fast = copy.deepcopy(plain).to(memory_format=torch.channels_last)  # pyright: ignore
    x, y = torch.randn(4, 3, 96, 96, dtype=torch.float64), torch.tensor([0, 1, 2, 3])
    for net, images in ((plain, x), (fast, x.contiguous(memory_format=torch.channels_last))):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
        for _ in range(3):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(images), y)
            loss.backward()
            optimizer.step()
        assert taken(loss).keys() == ({"_Normalise", "_Depthwise5"} if net is fast else set())
    for (name, a), (_, b) in zip(plain.state_dict().items(), fast.state_dict().items(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7, msg=lambda m, name=name: f"{name}: {m}")
