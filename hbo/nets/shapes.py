"""A network's shapes without its arithmetic: what a detector or an embedding asks before it is built.

Convolutions return an empty map of their output's shape, which takes a tenth of a second. The meta device
would skip the rest of the arithmetic too, but its kernels first import torch's compiler, which takes seconds,
and its batch norm is written in Python.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten


class WithoutConvolutions(TorchDispatchMode):
    """Convolutions return `convolved`; everything else is computed."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # skipping would import torch._dynamo, which takes seconds; nothing is compiled here

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return convolved(*args) if func._overloadpacket is aten.convolution else func(*args, **(kwargs or {}))


def convolved(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    extra: list[int],
    groups: int,
) -> Tensor:
    """An empty tensor of a convolution's output shape."""
    size = []
    for n, k, s, p, d, e in zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, extra, strict=True):
        reach = d * (k - 1)
        size.append((n - 1) * s - 2 * p + reach + e + 1 if transposed else (n + 2 * p - reach - 1) // s + 1)
    return x.new_empty(x.shape[0], weight.shape[1] * groups if transposed else weight.shape[0], *size)


@contextmanager
def dry(model: nn.Module) -> Iterator[None]:
    """Evaluation without gradients and on one thread, as there is almost no arithmetic and waking other
    threads takes longer on a busy machine; all is restored.
    """
    modes = {module: module.training for module in model.modules()}
    threads = torch.get_num_threads()
    model.eval()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_num_threads(threads)
        for module, training in modes.items():
            module.training = training


def dry_run(
    net: nn.Module,
    size: tuple[int, int],
    note: Callable[[str, nn.Module, Any], None] | None = None,
    call: Callable[[Tensor], Any] | None = None,
) -> Any:
    """One image of this size (H, W) through the network, of which only shapes mean something.

    Args:
        net: it is not changed.
        size: of the image.
        note: is told the name, the module and the output of every call, the network itself as "".
        call: what gets the image: the network, or a method of it.

    Returns:
        The output.
    """
    weight = next(net.parameters(), None)
    image = torch.zeros(1, 3, *size, device=None if weight is None else weight.device)
    hooks = [
        module.register_forward_hook(lambda m, _i, out, tell=note, name=name: tell(name, m, out))
        for name, module in net.named_modules()
        if note is not None
    ]
    try:
        with dry(net), WithoutConvolutions():
            return (call or net)(image)
    finally:
        for hook in hooks:
            hook.remove()
