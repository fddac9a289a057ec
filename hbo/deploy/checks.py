"""What `hbo.deploy` knows: every module of a network is checked by its exact type, so that none is taken for
another or left out.
"""

from collections.abc import Collection
from dataclasses import fields

from einops.layers.torch import Rearrange
from torch import nn
from torch.nn.utils.parametrize import is_parametrized
from torchvision.models import MobileNetV2
from torchvision.models.mobilenetv2 import InvertedResidual as TorchvisionInvertedResidual
from torchvision.ops import Conv2dNormActivation

from hbo.block import PIXELSHUFFLE, Block, BlurPool, HarmoniousBottleneck, InvertedResidual
from hbo.deploy.lanes import refuse
from hbo.errors import UserError
from hbo.kernels.depthwise import Depthwise
from hbo.kernels.norm import BatchNorm
from hbo.nets import Net

# Switches that deploy obeys at every value: it reads their modules, or `hbo.deploy.bottleneck` computes them.
SWITCHES = {"k", "concat_ratio", "upsample", "residual", "scheme", "contract", "kernel"}
SEQUENCES = {nn.Sequential, Conv2dNormActivation}
LEAVES = {nn.BatchNorm2d, BatchNorm, nn.ReLU6, nn.Identity, BlurPool, Rearrange, nn.Upsample, nn.Dropout}
LEAVES |= {nn.Conv2d, Depthwise, nn.ConvTranspose2d, nn.AvgPool2d, nn.MaxPool2d, nn.Linear}
CHILDREN: dict[type[nn.Module], Collection[str]] = {
    Net: ("features", "head", "classifier"),
    HarmoniousBottleneck: ("contract", "depthwise", "project", "enlarge", "smooth", "pool"),
    InvertedResidual: ("expand", "depthwise", "project"),
    MobileNetV2: ("features", "classifier"),
    TorchvisionInvertedResidual: ("conv",),
}


def check_hooks(model: nn.Module) -> None:
    """Refuse hooks, pruning and parametrizations, whichever network: deploy reads the weights and calls no
    module of the model. Hooks that say `only_in_training`, as dropout's, do nothing in evaluation mode.

    Raises:
        UserError: with the module's name.
    """
    for name, module in model.named_modules():
        hooks = (
            *module._forward_hooks.values(),
            *module._forward_pre_hooks.values(),
            *module._backward_hooks.values(),
            *module._backward_pre_hooks.values(),
        )
        if not all(getattr(hook, "only_in_training", False) for hook in hooks):
            raise refuse(
                f"{name or type(model).__name__} has a hook (pruning sets one), which deploy would leave out"
            )
        if is_parametrized(module):
            raise refuse(
                f"{name or type(model).__name__} has a parametrization, which deploy would leave out"
            )


def check_modules(model: nn.Module) -> None:
    """Refuse a module that `hbo.deploy` does not know: another type, child or setting
    than the network was built with.

    Raises:
        UserError: with the module's name and type.
    """
    for name, module in model.named_modules():
        why = _unknown(module)
        if why is not None:
            raise refuse(
                f"{name or 'the network'} is a {type(module).__name__}{why}, which deploy does not know"
            )


def check_switches(block: Block) -> None:
    """Refuse a switch that `hbo.deploy` does not know: it may change `forward`, which no module shows.

    Raises:
        UserError: with the switch and its value.
    """
    for field in fields(block):
        if field.name not in SWITCHES and (value := getattr(block, field.name)) != field.default:
            raise UserError(
                f"{field.name}={value}: hbo.deploy does not know this switch; hbo.export --plain exports the"
                " network unchanged"
            )


def _unknown(module: nn.Module) -> str | None:
    """What is unknown about a module: "" for its type; None for nothing."""
    # A subclass may add other methods.
    kind = next((k for k in CHILDREN if type(module).forward is k.forward), type(module))
    if "forward" in vars(module):
        return " with a forward of its own"
    if kind in CHILDREN:
        extra = [name for name, _ in module.named_children() if name not in CHILDREN[kind]]
        return f" with {extra[0]}" if extra else None
    if kind in SEQUENCES:
        return None
    if kind not in LEAVES:
        return ""
    if isinstance(module, nn.Linear) and module.bias is None:
        return " without bias"
    wrong = [
        f"{name}={getattr(module, name)}"
        for name, value in _settings(module).items()
        if getattr(module, name) != value
    ]
    return f" with {wrong[0]}" if wrong else None


def _settings(module: nn.Module) -> dict[str, object]:
    """Attributes of a leaf that deploy assumes."""
    if isinstance(module, nn.Conv2d):
        size, stride = module.kernel_size[0], module.stride[0]
        square = {"kernel_size": (size, size), "stride": (stride, stride), "padding": (size // 2, size // 2)}
        return {"padding_mode": "zeros", "dilation": (1, 1), **square}
    if isinstance(module, nn.ConvTranspose2d):
        size = module.kernel_size[0]
        square = {
            "kernel_size": (size, size),
            "stride": (size // 2, size // 2),
            "padding": (size // 4, size // 4),
        }
        return {"padding_mode": "zeros", "dilation": (1, 1), "output_padding": (0, 0), "bias": None, **square}
    if isinstance(module, nn.BatchNorm2d):
        return {"affine": True, "track_running_stats": True}
    if isinstance(module, nn.AvgPool2d):
        return {
            "kernel_size": 2,
            "stride": 2,
            "padding": 0,
            "ceil_mode": True,
            "count_include_pad": True,
            "divisor_override": None,
        }
    if isinstance(module, nn.MaxPool2d):
        return {"kernel_size": 2, "stride": 2, "padding": 0, "dilation": 1, "ceil_mode": True}
    return {"pattern": PIXELSHUFFLE} if isinstance(module, Rearrange) else {}
