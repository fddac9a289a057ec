"""Rivals by name: the classification backbones of torchvision, timm and pytorchcv behind one small adapter."""

import difflib
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from hbo.errors import UserError
from hbo.nets import Pyramid


class Rival(Pyramid):
    """A classification backbone of torchvision, timm or pytorchcv, by name: the one adapter for all three."""

    def __init__(self, net: str, num_classes: int) -> None:
        super().__init__()
        zoo, _, name = net.partition(":")
        self.net = _from_zoo(zoo, name, num_classes)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b classes"]:
        return self.net(x)


def _from_zoo(zoo: str, name: str, num_classes: int) -> nn.Module:
    """The zoo's network, without weights.

    Raises:
        UserError: the package is not installed, or has no such network (the nearest name is given).
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

            known = list(model_provider._models)
            make = lambda: _free_size(model_provider.get_model(name, pretrained=False, num_classes=num_classes))
    except ImportError as error:
        raise UserError(f"net={zoo}:{name}: {zoo} is not installed ({error}); pip install -e '.[zoo]'") from None
    if name not in known:
        near = ", ".join(difflib.get_close_matches(name, known, n=3))
        raise UserError(
            f"net={zoo}:{name}: {zoo} has no classification network of that name" + (f"; near it: {near}" if near else "")
        )
    return make()


def _free_size(net: nn.Module) -> nn.Module:
    """Pool whatever map there is, where pytorchcv pools with a window of the size for 224 x 224."""
    features: Any = getattr(net, "features", None)
    if isinstance(getattr(features, "final_pool", None), nn.AvgPool2d):
        features.final_pool = nn.AdaptiveAvgPool2d(1)
    return net
