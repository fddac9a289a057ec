"""A network without its classifier: one global feature an image, by which images are compared (section 4.3, table 9)."""

import copy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hbo.errors import UserError
from hbo.nets.counting import stages


class Embedding(nn.Module):
    """What a network's own classifier would be given: its last map pooled, as the network pools it.

    Args:
        backbone: any network whose classifier ends in a linear layer, which is taken off.
        bn_neck: a batch norm after the feature, whose bias stays 0 (Luo et al. 2019).
    """

    def __init__(self, backbone: nn.Module, bn_neck: bool = False) -> None:
        super().__init__()
        self.channels = without_linear(backbone)
        self.backbone = backbone
        self.neck: nn.Module = nn.Identity()
        if bn_neck:
            self.neck = nn.BatchNorm1d(self.channels)
            self.neck.bias.requires_grad_(False)

    @property
    def built(self) -> list[Any]:
        """What the backbone's blocks really got."""
        return getattr(self.backbone, "built", [])

    def stages(self) -> dict[str, str]:
        """Module name -> its part, as costs are told."""
        return {f"backbone.{module}": stage for module, stage in stages(self.backbone).items() if stage != "classifier"}

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """The feature, which the neck has yet to go over."""
        return self.backbone(x).flatten(1)


def without_linear(net: nn.Module) -> int:
    """Put the identity in the place of the linear layer that a network ends with; the width of what that was given.

    Raises:
        UserError: the network ends otherwise.
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
        raise UserError(f"{type(net).__name__} does not end with a linear classifier, so it has no feature to retrieve by")
    name, channels, _ = last[-1]
    parent, _, child = name.rpartition(".")
    setattr(net.get_submodule(parent), child, nn.Identity())
    return channels
