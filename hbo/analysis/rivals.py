"""Differences of table 7's other networks: what their authors count besides convolutions and linear layers,
and what they build differently.

Taken from their published code. Each term is counted on the network itself, so that a
published cost can be reproduced.
"""

import math
from typing import Any

import torch
from torch import nn

from hbo.config import Run
from hbo.tasks import build

TERMS = {
    "relu": "one operation for each input of a ReLU or ReLU6",
    "pooling": "one for each input of an average pool",
    "bias": "one for each bias of a linear layer",
    "first_units": "the authors' first unit of a stage, which is wider than torchvision's",
}


def terms(run: Run) -> dict[str, int]:
    """Term -> operations of one image, in addition to `hbo.cost.macs`.

    Raises:
        UserError: the network's package is not installed.
    """
    net = build.network(run, 1000).eval()
    found = dict.fromkeys(TERMS, 0)

    def note(module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        found[_term(module)] += _operations(module, args[0], out)

    hooks = [module.register_forward_hook(note) for module in net.modules() if _term(module)]
    try:
        with torch.no_grad():
            net(torch.zeros(1, 3, run.resolution, run.resolution))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _term(module: nn.Module) -> str:
    if isinstance(module, (nn.ReLU, nn.ReLU6)):
        return "relu"
    if isinstance(module, (nn.AvgPool2d, nn.AdaptiveAvgPool2d)):
        return "pooling"
    if isinstance(module, nn.Linear):
        return "bias"
    return "first_units" if _is_first_unit(module) else ""


def _is_first_unit(module: nn.Module) -> bool:
    from torchvision.models.shufflenetv2 import InvertedResidual

    return isinstance(module, InvertedResidual) and len(module.branch1) > 0


def _operations(module: Any, x: torch.Tensor, out: torch.Tensor) -> int:
    """Extra operations of one call. Here the two branches of a first unit turn c channels into h each; the
    authors' make c and 2h - c.

    Their last pointwise convolutions therefore cost c * c + h * (2h - c) per pixel, torchvision's
    c * h + h * h.
    """
    if isinstance(module, nn.Linear):
        return 0 if module.bias is None else module.bias.numel()
    if not _is_first_unit(module):
        return x.numel()
    half, channels = out.shape[1] // 2, x.shape[1]
    return (half - channels) ** 2 * math.prod(out.shape[2:])
