"""Batch norm that is quick where PyTorch's is slow: training on a CPU in channels-last order with few channels.

PyTorch's kernel walks the channels of one pixel at a time, which are 5 to 50 here, where a vector register holds 16 and
a cache line as many; it takes half of an update at width 0.25. Here a row is several pixels, so that the inner loop is
hundreds of numbers long. The arithmetic is the same (two passes, a biased variance to normalise, an unbiased one to
keep), and so are the parameters, their names and the running statistics.
"""

from typing import Any

import torch
from torch import Tensor, nn

ROW = 256  # numbers in the inner loop; 128 to 512 do equally well


class BatchNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d`, (B, C, H, W) -> (B, C, H, W); evaluation, GPUs, compiled networks and other layouts take PyTorch's own."""

    def forward(self, input: Tensor) -> Tensor:
        if not (self.training and _suits(input)):
            return super().forward(input)
        out, mean, var = _Normalise.apply(input, self.weight, self.bias, self.eps)  # pyright: ignore[reportGeneralTypeIssues]
        if self.track_running_stats:
            assert self.momentum is not None
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            n = input.numel() // input.shape[1]
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * (n / (n - 1)), self.momentum)
        return out


def _suits(x: Tensor) -> bool:
    return (
        not torch.compiler.is_compiling()
        and x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.float64)
        and x.numel() > x.shape[1]  # one number a channel: PyTorch's refuses it in words of its own
        and x.is_contiguous(memory_format=torch.channels_last)
        and not x.is_contiguous()  # one channel or one pixel: either order is both, PyTorch decides
        and not torch.is_autocast_enabled("cpu")
    )


def _rows(x: Tensor) -> tuple[Tensor, int]:
    """(B, C, H, W) in channels-last order as rows of `together` pixels, (B*H*W / together, together * C), no copy."""
    c = x.shape[1]
    pixels, together = x.numel() // c, 1
    while together * c < ROW and pixels % (2 * together) == 0:
        together *= 2
    return x.permute(0, 2, 3, 1).reshape(pixels // together, together * c), together


def _total(rows: Tensor, together: int) -> Tensor:
    """Sums over the pixels, (C,)."""
    return rows.sum(0).view(together, -1).sum(0)


class _Normalise(torch.autograd.Function):
    """(x, weight, bias, eps) -> (normalised x, mean, biased variance); the statistics carry no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        rows, together = _rows(x)
        n = x.numel() // x.shape[1]
        mean = _total(rows, together) / n
        out = torch.empty_like(x)  # a tensor of its own, not a view: the ReLU6 after it works in place
        centred = torch.sub(rows, mean.repeat(together), out=_rows(out)[0])
        var = _total(centred * centred, together) / n
        inverse = (var + eps).rsqrt_()
        torch.addcmul(bias.repeat(together), centred, (weight * inverse).repeat(together), out=centred)
        ctx.save_for_backward(x, weight, mean, inverse)
        ctx.mark_non_differentiable(mean, var)
        return out, mean, var

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x, weight, mean, inverse = ctx.saved_tensors
        grad = grads[0].contiguous(memory_format=torch.channels_last)
        (rows, together), (gs, _) = _rows(x), _rows(grad)
        n = x.numel() // x.shape[1]
        d_bias = _total(gs, together)
        d_weight = (_total(gs * rows, together) - mean * d_bias) * inverse
        # d_x = scale * (grad - d_bias / n - normalised * d_weight / n), sorted by what each number is multiplied with
        scale = weight * inverse
        of_x = -scale * inverse * d_weight / n
        constant = -scale * d_bias / n - of_x * mean
        d_x = torch.empty_like(x)
        d_rows = torch.addcmul(constant.repeat(together), gs, scale.repeat(together), out=_rows(d_x)[0])
        d_rows.addcmul_(rows, of_x.repeat(together))
        return d_x, d_weight, d_bias, None
