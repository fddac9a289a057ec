"""The gradients of a 5x5 depthwise convolution: on a CPU, PyTorch's weight gradient is
slow for kernels wider than 3.

Measured on one core (oneDNN in torch 2.14, AVX-512), 32 x 8 x 112 x 112 at stride
1: 24 ms for 5x5, 4 ms for 5x3.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hbo.kernels.norm import can_use

NARROWEST = 8  # columns of an input, below which nothing is gained


class Depthwise(nn.Conv2d):
    """A depthwise convolution without bias: (B, C, H, W) -> (B, C, ceil(H/stride),
    ceil(W/stride)), `kernel` odd.

    In training on a CPU in channels-last order a 5x5 one takes the gradients of
    this file, else PyTorch's own.
    """

    def __init__(self, channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        if self.is_faster(input):
            return _Depthwise5.apply(input, self.weight, self.stride[0])  # pyright: ignore[reportReturnType]
        return super().forward(input)

    def is_faster(self, x: Tensor) -> bool:
        """Whether the gradients of this file can be used on x, and are quicker than PyTorch's own."""
        return (
            self.training
            and torch.is_grad_enabled()
            and self.kernel_size == (5, 5)
            and self.stride in ((1, 1), (2, 2))
            # what else a user may have set since
            and (self.padding, self.dilation, self.padding_mode, self.bias) == ((2, 2), (1, 1), "zeros", None)
            and can_use(x)
            and x.dtype == self.weight.dtype
            and x.shape[1] == self.groups == self.out_channels
            and x.shape[3] >= NARROWEST
        )


class _Depthwise5(torch.autograd.Function):
    """(x, weight (C, 1, 5, 5), stride 1 or 2) -> (B, C, ceil(H/stride),
    ceil(W/stride)), in channels-last order.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return F.conv2d(x, weight, stride=stride, padding=2, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x, weight = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True: PyTorch's own gradients, which have gradients again
            needs = ctx.needs_input_grad[:2]
            return *_backward(grads[0], x, weight, ctx.stride, [2, 2], [*needs, False])[:2], None
        grad = grads[0].contiguous(memory_format=torch.channels_last)
        d_x = d_weight = None
        # The same sums, by the forward kernel: it takes two thirds of the time.
        if ctx.needs_input_grad[0] and ctx.stride == 1:
            d_x = F.conv2d(grad, weight.flip(2, 3), padding=2, groups=x.shape[1])
        elif ctx.needs_input_grad[0]:
            d_x = _backward(grad, x, weight, ctx.stride, [2, 2], [True, False, False])[0]
        if ctx.needs_input_grad[1]:
            d_weight = weight_gradient(grad, x, ctx.stride)
        return d_x, d_weight, None


def weight_gradient(grad: Tensor, x: Tensor, stride: int) -> Tensor:
    """(B, C, H/stride, W/stride), (B, C, H, W) -> (C, 1, 5, 5).

    A tap of 5x5 pairs column w of the gradient with column `stride * w + offset` of the input, offset -2 to
    2. The quick path has two or three columns and a padding of at most 1. With the gradient moved a column to
    the left they are the offsets -2, -1 and, at stride 1, where two columns are slow, 0; with its last column
    left out and at stride 1 moved to the right, 0, 1, 2. What the first column would meet lies in the
    padding; what the last one meets is added.
    """
    b, c, h, w = grad.shape
    pixels, padding, columns = grad.permute(0, 2, 3, 1), 2 - stride, 4 - stride
    moved = grad.new_empty(b, h, w if stride == 1 else x.shape[3] // 2, c)
    moved[:, :, : w - 1] = pixels[:, :, 1:]
    moved[:, :, w - 1 :] = 0
    out = grad.new_empty(c, 1, 5, 5)
    out[..., :columns] = _taps(moved.permute(0, 3, 1, 2), x, columns, stride, padding)
    if stride == 1:
        moved[:, :, 1:] = pixels[:, :, : w - 1]
        moved[:, :, 0] = 0
    else:
        moved = pixels[:, :, : w - 1].contiguous()
    out[..., 2:] = _taps(moved.permute(0, 3, 1, 2), x, 3, stride, padding)
    border = F.pad(x.permute(0, 2, 3, 1)[:, :, stride * (w - 1) :], (0, 0, 0, 0, 2, 2))
    met = border.unfold(1, 5, stride)  # (B, h, 1 or 2, C, 5)
    out[:, 0, :, 2 : 2 + met.shape[2]] += (met * pixels[:, :, -1, None, :, None]).sum((0, 1)).permute(1, 2, 0)
    return out


def _taps(grad: Tensor, x: Tensor, columns: int, stride: int, padding: int) -> Tensor:
    """The weight gradient of a 5 x `columns` depthwise convolution, (C, 1, 5, columns)."""
    weight = grad.new_empty(x.shape[1], 1, 5, columns)  # its values do not matter
    return _backward(grad, x, weight, stride, [2, padding], [False, True, False])[1]


def _backward(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: list[int], of: list[bool]
) -> Any:
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, [stride] * 2, padding, [1, 1], False, [0, 0], x.shape[1], of
    )
