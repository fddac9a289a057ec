"""A network without its classifier: one feature per image."""

import copy
from typing import Any

import torch
from torch import nn

from hbo.errors import UserError


def without_linear(net: nn.Module) -> int:
    """Replace a network's final linear layer by the identity; returns the width of that layer's input.

    Raises:
        UserError: the network has another ending.
    """
    meta: Any = copy.deepcopy(net).to("meta").eval()
    last: list[tuple[str, int, Any]] = []
    for name, module in meta.named_modules():
        if isinstance(module, nn.Linear):
            note = lambda m, _i, out, name=name: last.append((name, m.in_features, tuple(out.shape)))
            module.register_forward_hook(note)
    with torch.no_grad():
        out = meta(torch.empty(1, 3, 224, 224, device="meta"))
    if not last or last[-1][2] != tuple(out.shape):
        raise UserError(f"{type(net).__name__} does not end with a linear classifier, so it has no feature")
    name, channels, _ = last[-1]
    parent, _, child = name.rpartition(".")
    setattr(net.get_submodule(parent), child, nn.Identity())
    return channels
