"""The weight gradient of a 5x5 depthwise convolution, from two of 5x3: on a CPU, kernels wider than 3 take a slow path.

Measured on one core (oneDNN in torch 2.14, AVX-512), 32 x 8 x 112 x 112 at stride 1: 24 ms for 5x5, 4 ms for 5x3.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NARROWEST = 8  # columns of an input, below which nothing is gained


def takes(conv: nn.Module) -> bool:
    """Whether it is a 5x5 depthwise convolution as this file knows it."""
    return (
        isinstance(conv, nn.Conv2d)
        and conv.groups == conv.in_channels == conv.out_channels
        and (conv.kernel_size, conv.padding, conv.dilation, conv.bias) == ((5, 5), (2, 2), (1, 1), None)
        and conv.stride in ((1, 1), (2, 2))
    )


class Depthwise5(torch.autograd.Function):
    """(x, weight (C, 1, 5, 5), stride 1 or 2) -> (B, C, ceil(H/stride), ceil(W/stride)), in channels-last order."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return F.conv2d(x, weight, stride=stride, padding=2, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x, weight = ctx.saved_tensors
        grad = grads[0].contiguous(memory_format=torch.channels_last)
        d_x = d_weight = None
        if ctx.needs_input_grad[0]:
            d_x = _backward(grad, x, weight, ctx.stride, [2, 2], [True, False, False])[0]
        if ctx.needs_input_grad[1]:
            d_weight = weight_gradient(grad, x, ctx.stride)
        return d_x, d_weight, None


def weight_gradient(grad: Tensor, x: Tensor, stride: int) -> Tensor:
    """(B, C, H/stride, W/stride), (B, C, H, W) -> (C, 1, 5, 5).

    A tap of 5x5 pairs column w of the gradient with column `stride * w + offset` of the input, offset -2 to 2. The quick path
    has three columns and a padding of at most 1. With the gradient moved a column to the left they are the offsets -2, -1, 0;
    with it moved to the right (at stride 2, where it is) 0, 1, 2. A column falls off each time; the input that it met lies in the
    padding, but for offset 0 at the left edge and, of an even width at stride 2, offset 1 at the right one: these are added.
    """
    b, c, h, w = grad.shape
    pixels, padding = grad.permute(0, 2, 3, 1), 2 - stride
    moved, out = grad.new_empty(b, h, w + padding - 1, c), grad.new_empty(c, 1, 5, 5)
    for first, to, of in ((2, slice(padding, None), slice(w - 1)), (0, slice(w - 1), slice(1, None))):
        moved[:, :, to] = pixels[:, :, of]
        if padding:
            moved[:, :, -1 if first == 0 else 0] = 0
        out[..., first : first + 3] = _taps(moved.permute(0, 3, 1, 2), x, 3, stride, padding)  # the second's offset 0 stays
    out[..., 2:3] += _taps(_column(grad, 0), _column(x, 0), 1, stride, 0)
    if stride == 2 and x.shape[3] % 2 == 0:
        out[..., 3:4] += _taps(_column(grad, w - 1), _column(x, x.shape[3] - 1), 1, stride, 0)
    return out


def _column(x: Tensor, w: int) -> Tensor:
    return x[..., w : w + 1].contiguous(memory_format=torch.channels_last)


def _taps(grad: Tensor, x: Tensor, columns: int, stride: int, padding: int) -> Tensor:
    """The weight gradient of a 5 x `columns` depthwise convolution, (C, 1, 5, columns)."""
    weight = grad.new_empty(x.shape[1], 1, 5, columns)  # its values do not matter
    return _backward(grad, x, weight, stride, [2, padding], [False, True, False])[1]


def _backward(grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: list[int], of: list[bool]) -> Any:
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, [stride] * 2, padding, [1, 1], False, [0, 0], x.shape[1], of
    )
