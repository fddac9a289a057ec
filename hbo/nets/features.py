"""A network without its classifier: one feature per image."""

from typing import Any

from torch import nn

from hbo.errors import UserError
from hbo.nets.shapes import dry_run


def without_linear(net: nn.Module) -> int:
    """Replace a network's final linear layer by the identity; returns the width of that layer's input.

    Raises:
        UserError: the network has another ending.
    """
    last: list[tuple[str, int, Any]] = []

    def note(name: str, module: nn.Module, out: Any) -> None:
        if isinstance(module, nn.Linear):
            last.append((name, module.in_features, tuple(out.shape)))

    out = dry_run(net, (224, 224), note)
    if not last or last[-1][2] != tuple(out.shape):
        raise UserError(f"{type(net).__name__} does not end with a linear classifier, so it has no feature")
    name, channels, _ = last[-1]
    parent, _, child = name.rpartition(".")
    setattr(net.get_submodule(parent), child, nn.Identity())
    return channels
