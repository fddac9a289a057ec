"""Other authors' networks by name: classification backbones of torchvision, timm and
pytorchcv behind one small adapter.
"""

import difflib
import re
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hbo.errors import UserError
from hbo.nets.pyramid import Pyramid


class Rival(Pyramid):
    """A classification backbone of torchvision, timm or pytorchcv, by name."""

    def __init__(self, net: str, num_classes: int) -> None:
        super().__init__()
        zoo, _, name = net.partition(":")
        self.net = _from_zoo(zoo, name, num_classes)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b classes"]:
        return self.net(x)


def _from_zoo(zoo: str, name: str, num_classes: int) -> nn.Module:
    """The zoo's network, without weights.

    Raises:
        UserError: the package is not installed, or has no such network; suggests the nearest name.
    """
    try:
        if zoo == "torchvision":
            from torchvision import models

            known = models.list_models(module=models)
            aux = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
            make = lambda: models.get_model(name, weights=None, num_classes=num_classes, **aux)
        elif zoo == "timm":
            import timm

            known = timm.list_models()
            make = lambda: timm.create_model(name, pretrained=False, num_classes=num_classes)
        else:
            from pytorchcv import model_provider

            known = [*model_provider._models, "shufflenet_g3_w3d2"]
            make = lambda: _free_size(_wired(_pytorchcv(name, num_classes)))
    except ImportError as error:
        raise UserError(
            f"net={zoo}:{name}: {zoo} is not installed ({error}); pip install -e '.[zoo]'"
        ) from None
    if name not in known:
        # Timm's names with weights, as in resnet18.a1_in1k: no weights are loaded here.
        plain = name.split(".")[0]
        if zoo == "timm" and plain in known:
            raise UserError(
                f"net={zoo}:{name}: names weights, but networks start without; it is {zoo}:{plain} here"
            )
        near = ", ".join(difflib.get_close_matches(name, known, n=3))
        raise UserError(
            f"net={zoo}:{name}: {zoo} has no classification network of that name"
            + (f"; near it: {near}" if near else "")
        )
    return make()


def renamed(net: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with current names: torchvision's DenseNet files are older than its code, which renames
    the same way.
    """
    if not net.startswith("torchvision:densenet"):
        return state
    return {
        re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", key): value
        for key, value in state.items()
    }


def _pytorchcv(name: str, num_classes: int) -> nn.Module:
    """A network of pytorchcv, or ShuffleNetV1 1.5x with its paper's stem of 24 channels,
    which pytorchcv does not name.
    """
    from pytorchcv import model_provider
    from pytorchcv.models.shufflenet import ShuffleNet

    if name == "shufflenet_g3_w3d2":
        return ShuffleNet([[360] * 4, [720] * 8, [1440] * 4], 24, groups=3, num_classes=num_classes)
    return model_provider.get_model(name, pretrained=False, num_classes=num_classes)


def _wired(net: nn.Module) -> nn.Module:
    """Fix the inputs of a CondenseNet's groups: group g of G gets every G-th channel, starting at g.

    Its authors learn the inputs of each group. pytorchcv has the converted network, in which each layer
    selects inputs by an index that comes with trained weights; without them every index is 0, and no block
    gets a gradient.
    """
    from pytorchcv.models.condensenet import CondenseComplexConv, CondenseLinear

    for module in net.modules():
        if isinstance(module, (CondenseComplexConv, CondenseLinear)):
            index: Any = module.index
            # The classifier has no groups: it keeps every second input.
            conv: Any = getattr(module, "conv", None)
            every = torch.arange(len(index), device=index.device)
            index.copy_(2 * every if conv is None else every.view(-1, conv.groups).T.flatten())
    return net


def _free_size(net: nn.Module) -> nn.Module:
    """Pool globally at any size; pytorchcv's pooling window is fixed for 224 x 224."""
    features: Any = getattr(net, "features", None)
    if isinstance(getattr(features, "final_pool", None), nn.AvgPool2d):
        features.final_pool = nn.AdaptiveAvgPool2d(1)
    return net
