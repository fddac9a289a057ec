"""Mixed batches, and random dropping of parts of a network, from torchvision. Draws depend on (seed, update,
rank) only, so that runs can resume.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torchvision.models.mobilenetv2 import InvertedResidual as MobileNetV2Residual
from torchvision.ops import stochastic_depth
from torchvision.transforms import v2

from hbo.block import HarmoniousBottleneck, InvertedResidual
from hbo.data.preprocess import MEAN


def erased(images: Float[Tensor, "b 3 h w"], share: float) -> Float[Tensor, "b 3 h w"]:
    """Random erasing (Zhong et al. 2017): in a share of the images, set a rectangle to ImageNet's mean, which
    is 0 after normalisation.
    """
    erase = v2.RandomErasing(p=share, value=[255 * mean for mean in MEAN])  # pyright: ignore
    return torch.stack([erase(image) for image in images])


def mixed(
    images: Float[Tensor, "b 3 h w"], labels: Int[Tensor, " b"], num_classes: int, mixup: float, cutmix: float
) -> tuple[Float[Tensor, "b 3 h w"], Float[Tensor, "b classes"]]:
    """A batch mixed with itself, and its labels as shares: mixup (Zhang et al. 2017), CutMix (Yun et al.
    2019), or one of both with equal chance.

    Args:
        images: not normalised.
        labels: of the images.
        num_classes: columns of the mixed labels.
        mixup: alpha of its Beta distribution; 0: off.
        cutmix: the same.
    """
    kinds = [v2.MixUp(alpha=mixup, num_classes=num_classes)] if mixup else []
    kinds += [v2.CutMix(alpha=cutmix, num_classes=num_classes)] if cutmix else []
    return kinds[int(torch.randint(len(kinds), ()))](images, labels)


def last_linear(net: nn.Module) -> nn.Linear:
    """The classifier's linear layer: the last one of the network."""
    return [module for module in net.modules() if isinstance(module, nn.Linear)][-1]


def leave_out(net: nn.Module, dropout: float, drop_path: float) -> None:
    """Drop inputs of the classifier, and whole residual branches per image, in training.

    A branch's rate grows linearly from 0 to `drop_path` with the depth of its block (Huang et al. 2016;
    Larsson et al. 2017). The weights keep their names.

    Args:
        net: one of our tables; its residual blocks are harmonious bottlenecks and inverted residuals.
        dropout: share of the classifier's inputs, in [0, 1).
        drop_path: rate of the last block, in [0, 1).
    """
    if dropout:
        last_linear(net).register_forward_pre_hook(Dropout(dropout))
    branches = residual_branches(net) if drop_path else []
    for place, branch in enumerate(branches, start=1):
        rate = drop_path * place / len(branches)
        branch.register_forward_hook(StochasticDepth(rate))


class Dropout:
    """A hook that drops a layer's inputs."""

    only_in_training = True

    def __init__(self, rate: float) -> None:
        self.rate = rate

    def __call__(self, module: nn.Module, given: tuple[Tensor, ...]) -> Tensor:
        return F.dropout(given[0], self.rate, module.training)


class StochasticDepth:
    """A hook that drops a branch's output for some images, and scales up the others."""

    only_in_training = True

    def __init__(self, rate: float) -> None:
        self.rate = rate

    def __call__(self, module: nn.Module, _: Any, out: Tensor) -> Tensor:
        return stochastic_depth(out, self.rate, "row", module.training)


def residual_branches(net: nn.Module) -> Sequence[nn.Module]:
    """The modules whose output each residual block adds to its input, in order."""
    found: list[nn.Module] = []
    for block in net.modules():
        if isinstance(block, HarmoniousBottleneck) and block.residual_channels:
            found.append(block.enlarge)
        elif isinstance(block, InvertedResidual) and block.residual_channels:
            found.append(block.project)
        elif isinstance(block, MobileNetV2Residual) and block.use_res_connect:
            found.append(block.conv)
    return found
