"""hbo.norm and the block's slices against PyTorch's own, in double precision."""

import copy

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

from hbo.block import Block, ends
from hbo.nets import build
from hbo.norm import BatchNorm, _Normalise, suits


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
        assert suits(x)
        for _ in range(2):
            out = norm.normalise(x) if norm is ours else norm(x)
        found.append([out, *torch.autograd.grad(out, [x, norm.weight, norm.bias], grad), *norm.buffers()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    assert [n for n, _ in ours.state_dict().items()] == [n for n, _ in theirs.state_dict().items()]


def test_its_gradient_is_the_slope():
    x, weight, bias = _map(2, 3, 4, 5), *(torch.rand(3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert gradcheck(lambda *args: _Normalise.apply(*args, 1e-5, False)[0], (x, weight, bias))


def test_a_constant_channel_far_from_zero_is_normalised_as_pytorch_does():
    """Its variance is 0 by rounding only; what is left is multiplied by 1 / sqrt(eps), as in PyTorch's own kernel."""
    x = torch.full((4, 8, 6, 6), 1000.0).contiguous(memory_format=torch.channels_last)
    assert BatchNorm(8)(x).abs().max() <= max(nn.BatchNorm2d(8)(x).abs().max(), 0.01)


@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (4, 10, 8, 8), (2, 300, 4, 4)])
def test_with_relu6_the_same_as_relu6_after_it(shape):
    norm = BatchNorm(shape[1]).double()
    nn.init.uniform_(norm.weight, 2, 8, generator=torch.Generator().manual_seed(1))  # so that both of its bends are met
    x, grad = _map(*shape), _map(*shape).detach()
    plain = nn.functional.relu6(norm.normalise(x))
    assert (plain == 0).any()
    assert (plain == 6).any()
    fused = norm.normalise(x, relu6=True)
    for a, b in zip([fused, *torch.autograd.grad(fused, [x, norm.weight, norm.bias], grad)],
                    [plain, *torch.autograd.grad(plain, [x, norm.weight, norm.bias], grad)], strict=True):  # fmt: skip
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("first", "last"), [(3, 4), (2, 3), (5, 5), (0, 3), (7, 7)])
def test_ends_are_slices_with_the_gradient_of_slices(first, last):
    x = _map(2, 7, 3, 4)
    a, b = ends(x, first, last)  # pyright: ignore
    assert ends(x.detach(), first, last) is None
    assert a.equal(x[:, :first])
    assert b.equal(x[:, 7 - last :])
    assert gradcheck(lambda x: ends(x, first, last), (x,))


@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_network_learns_as_with_pytorchs_own(k):
    """Three updates, channels last against the plain layout (PyTorch's batch norm), in double precision."""
    torch.manual_seed(k)
    plain = build("hbonet", Block(k=k), 0.25, 8, num_classes=5).double()
    fast = copy.deepcopy(plain).to(memory_format=torch.channels_last)  # pyright: ignore
    x, y = torch.randn(4, 3, 96, 96, dtype=torch.float64), torch.tensor([0, 1, 2, 3])
    for net, images in ((plain, x), (fast, x.contiguous(memory_format=torch.channels_last))):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
        for _ in range(3):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images), y).backward()
            optimizer.step()
    for (name, a), (_, b) in zip(plain.state_dict().items(), fast.state_dict().items(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7, msg=lambda m, name=name: f"{name}: {m}")
