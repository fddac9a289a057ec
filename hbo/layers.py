"""Convolution, batch norm and ReLU6 in a row, and the pooling beside them, with what makes their training quick on a CPU.

The modules are PyTorch's, and evaluation, GPUs, compiled networks and other layouts run them one by one. In training on a CPU in
channels-last order the same numbers come from other kernels, or fewer passes over memory: see `norm.py` and `depthwise.py`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hbo import depthwise
from hbo.norm import BatchNorm, suits


class Layers(nn.Sequential):
    """A sequence of convolutions, batch norms and ReLU6: (B, C, H, W) -> (B, C', H', W')."""

    def forward(self, input: Tensor) -> Tensor:
        if not (self.training and torch.is_grad_enabled() and suits(input)) or any(m._forward_hooks for m in self):
            return super().forward(input)
        x, layers = input, list(self)
        while layers:
            layer = layers.pop(0)
            if isinstance(layer, BatchNorm) and layer.gains(x):
                relu6 = bool(layers) and isinstance(layers[0], nn.ReLU6)
                x = layer.normalise(x, relu6)
                layers = layers[relu6:]
            elif depthwise.takes(layer) and suits(x) and x.shape[3] >= depthwise.NARROWEST:
                x = depthwise.Depthwise5.apply(x, layer.weight, layer.stride[0])  # pyright: ignore
            else:
                x = layer(x)
        return x


class HalvingPool(nn.AvgPool2d):
    """2x2 means: (B, C, H, W) -> (B, C, ceil(H/2), ceil(W/2)); a border of one row or column is a mean of what there is."""

    def __init__(self) -> None:
        super().__init__(2, ceil_mode=True)

    def forward(self, input: Tensor) -> Tensor:
        even = input.shape[2] % 2 == 0 == input.shape[3] % 2
        if even and input.requires_grad and suits(input):
            return _Halve.apply(input)  # pyright: ignore[reportReturnType]
        return super().forward(input)


class _Halve(torch.autograd.Function):
    """Its gradient is nearest upsampling, whose kernel is five times quicker than that of pooling's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return F.interpolate((grads[0] / 4).contiguous(memory_format=torch.channels_last), scale_factor=2)
