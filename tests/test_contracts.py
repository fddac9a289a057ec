"""What PyTorch promises of modules holds for a network in default training on a CPU: hooks, pruning,
parametrizations, derivatives.

The oracle is the same network made of PyTorch's own modules.
"""

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from quick import plain, taken
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jvp
from torch.nn.modules import module as global_hooks
from torch.nn.utils import parametrize, prune

from hbo.block import Block, conv_norm
from hbo.kernels.depthwise import Depthwise
from hbo.kernels.norm import BatchNorm
from hbo.nets import build

HOOKS = ["forward_pre_hook", "forward_hook", "full_backward_pre_hook", "full_backward_hook"]


def _network() -> nn.Module:
    torch.manual_seed(0)
    net = build("hbonet", Block(k=2), 0.25, num_classes=10)
    return net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def _images(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return x.contiguous(memory_format=torch.channels_last).requires_grad_()


def _layers() -> nn.Sequential:
    """A depthwise 5x5, batch norm and ReLU6 in double precision, which take both quick paths."""
    torch.manual_seed(0)
    return conv_norm(4, 4, 5, groups=4).double()


@pytest.mark.parametrize("kind", HOOKS)
def test_a_hook_on_every_module_is_called_once(kind):
    net, called = _network(), Counter()
    modules = dict(net.named_modules())
    for name, module in modules.items():
        getattr(module, f"register_{kind}")(lambda *_, name=name: called.update([name]))
    out = net(_images(2, 3, 64, 64))
    assert taken(out).keys() == {"_Normalise", "_Depthwise5"}
    out.sum().backward()
    assert called == Counter(list(modules))


@pytest.mark.parametrize("kind", HOOKS)
def test_a_global_hook_is_called_for_every_module(kind):
    net, called = _network(), Counter()
    handle = getattr(global_hooks, f"register_module_{kind}")(lambda module, *_: called.update([id(module)]))
    try:
        net(_images(2, 3, 64, 64)).sum().backward()
    finally:
        handle.remove()
    assert called == Counter(map(id, net.modules()))


def test_a_hooks_return_value_is_used():
    layers = _layers()
    layers[0].register_forward_pre_hook(lambda _, args: (2 * args[0],))
    layers[1].register_forward_hook(lambda _, args, out: out + 1)
    layers[2].register_full_backward_hook(lambda _, into, out: (3 * into[0],))
    x, found = _images(2, 4, 9, 8, dtype=torch.float64), []
    for net in (layers, plain(layers)):
        out = net(x)
        found.append([out, *torch.autograd.grad(out.sum(), [x, *net.parameters()])])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def _train(net: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        (net(x) ** 3).sum().backward()
        optimizer.step()
    return [net(x), *net.state_dict().values()]


def _prune(layers: nn.Sequential) -> None:
    prune.l1_unstructured(layers[0], "weight", amount=0.5)
    prune.l1_unstructured(layers[1], "weight", amount=0.5)


def _reparametrize(layers: nn.Sequential) -> None:
    class Squared(nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return weight**2

    for layer in layers[:2]:
        parametrize.register_parametrization(layer, "weight", Squared())


def _normalise_weights(layers: nn.Sequential) -> None:
    nn.utils.parametrizations.weight_norm(layers[0])


@pytest.mark.parametrize("change", [_prune, _reparametrize, _normalise_weights])
def test_pruned_and_parametrized_weights_train_as_pytorch_s(change):
    layers = _layers()
    theirs = plain(layers)
    x = _images(2, 4, 9, 8, dtype=torch.float64)
    for net in (layers, theirs):
        change(net)
    assert taken(layers(x)) == {"_Normalise": 1, "_Depthwise5": 1}
    theirs(x)  # another batch for the running statistics
    for a, b in zip(_train(layers, x), _train(theirs, x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)
    if change is _prune:
        assert (layers[0].weight == 0).sum() == 50


def test_a_subclass_with_its_own_forward_is_called():
    class Twice(Depthwise):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(input)

    layers = nn.Sequential(Twice(4, 5), BatchNorm(4)).double()
    x = _images(2, 4, 9, 8, dtype=torch.float64)
    once = Depthwise(4, 5).double()
    once.load_state_dict(layers[0].state_dict())
    assert layers[0](x).equal(2 * once(x))


@pytest.mark.parametrize("part", [0, 1, slice(0, 3)])
@pytest.mark.parametrize("stride", [1, 2])
def test_second_derivatives(part, stride):
    module = conv_norm(2, 2, 5, stride, groups=2).double()[part]
    x = _images(2, 2, 3, 8, dtype=torch.float64)
    names, weights = zip(*module.named_parameters(), strict=True)

    def run(x, *weights):
        return functional_call(module, dict(zip(names, weights, strict=True)), (x,))

    assert taken(run(x, *weights))
    assert torch.autograd.gradgradcheck(run, (x, *weights), fast_mode=True)


def test_a_gradient_penalty_on_a_network_is_pytorch_s():
    net = _network().double()
    x, found = _images(2, 3, 64, 64, dtype=torch.float64), []
    for each in (net, plain(net)):
        (slope,) = torch.autograd.grad(F.cross_entropy(each(x), torch.tensor([0, 1])), x, create_graph=True)
        (slope**2).sum().backward()
        found.append([p.grad for p in each.parameters()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")  # PyTorch itself uses what it deprecates
def test_torch_func_works():
    conv, x = _layers()[0], _images(2, 4, 9, 8, dtype=torch.float64)
    theirs, weights = plain(conv), dict(conv.named_parameters())
    slope = lambda net: grad(lambda w: (functional_call(net, w, (x,)) ** 3).sum())(weights)["weight"]
    tangent = lambda net: jvp(net, (x.detach(),), (torch.ones_like(x),))[1]
    torch.testing.assert_close(slope(conv), slope(theirs))
    torch.testing.assert_close(tangent(conv), tangent(theirs))


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_forward_mode_and_tracing_work():
    layers, x = _layers(), _images(2, 4, 9, 8, dtype=torch.float64)
    theirs, found = plain(layers), []
    for net in (layers, theirs):
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(x.detach(), torch.ones_like(x))
            found.append(forward_ad.unpack_dual(net(dual)).tangent)
        found.append(torch.jit.trace(net, x, check_trace=False)(x))
    torch.testing.assert_close(found[:2], found[2:])
