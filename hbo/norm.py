"""Batch norm that is quick where PyTorch's is slow: training on a CPU in channels-last order with few channels.

PyTorch's kernels walk the channels of one pixel at a time, which are 5 to 50 here, where a vector register holds 16 and a
cache line as many. Here a pixel is several: what PyTorch takes for channels are `together * C` lanes, whose statistics
are then joined. The arithmetic is the same (two passes, a biased variance to normalise, an unbiased one to keep), and so
are the parameters, their names and the running statistics.
"""

from typing import Any

import torch
from torch import Tensor, nn

LANES = 64  # numbers in the inner loop, at least; up to 512 do equally well


class BatchNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d`, (B, C, H, W) -> (B, C, H, W); evaluation, GPUs, compiled networks and other layouts take PyTorch's own."""

    def forward(self, input: Tensor) -> Tensor:
        return self.normalise(input) if self.training and suits(input) else super().forward(input)

    def normalise(self, x: Tensor, relu6: bool = False) -> Tensor:
        """Batch norm in training, then, if asked, ReLU6: of what `suits` only."""
        out, mean, var = _Normalise.apply(x, self.weight, self.bias, self.eps, relu6)  # pyright: ignore[reportGeneralTypeIssues]
        self.note(mean, var, x.numel() // x.shape[1])
        return out

    def note(self, mean: Tensor, var: Tensor, n: int) -> None:
        """Take a batch's mean and biased variance over n numbers into the running statistics."""
        if self.track_running_stats:
            assert self.momentum is not None
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * (n / (n - 1)), self.momentum)


def suits(x: Tensor) -> bool:
    """Whether the quick paths of this file take (B, C, H, W)."""
    return (
        not torch.compiler.is_compiling()
        and x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.float64)
        and x.numel() > x.shape[1]  # one number a channel: PyTorch's refuses it in words of its own
        and x.is_contiguous(memory_format=torch.channels_last)
        and not x.is_contiguous()  # one channel or one pixel: either order is both, PyTorch decides
        and not torch.is_autocast_enabled("cpu")
    )


def _lanes(x: Tensor) -> tuple[Tensor, int]:
    """(B, C, H, W) in channels-last order as (1, together * C, B*H*W / together, 1) in channels-last order, no copy."""
    c = x.shape[1]
    pixels, together = x.numel() // c, 1
    while together * c < LANES and pixels % (2 * together) == 0:
        together *= 2
    rows = x.permute(0, 2, 3, 1).reshape(1, pixels // together, 1, together * c)
    return rows.permute(0, 3, 1, 2), together


def _spread(values: Tensor, together: int) -> Tensor:
    """(C,) -> (1, together * C, 1, 1)."""
    return values.repeat(together).view(1, -1, 1, 1)


class _Normalise(torch.autograd.Function):
    """(x, weight, bias, eps, relu6) -> (normalised x, mean, biased variance); the statistics carry no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, relu6: bool) -> tuple[Tensor, Tensor, Tensor]:
        lanes, together = _lanes(x)
        means, variances = torch.ops.aten.batch_norm_update_stats(lanes, None, None, 0.0)
        means, variances = means.view(together, -1), variances.view(together, -1)
        mean = means.mean(0)
        var = (variances + (means - mean) ** 2).mean(0)
        inverse = (var + eps).rsqrt_()
        scale = weight * inverse
        out = torch.empty_like(x)  # a tensor of its own, not a view: a ReLU6 after it may work in place
        torch.addcmul(_spread(bias - mean * scale, together), lanes, _spread(scale, together), out=_lanes(out)[0])
        if relu6:
            out.clamp_(0, 6)
        # PyTorch's ReLU6 in place keeps a copy of what it overwrites; its result, which the next layer keeps, says as much.
        ctx.save_for_backward(x, weight, mean, inverse, *[out] * relu6)
        ctx.mark_non_differentiable(mean, var)
        return out, mean, var

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x, weight, mean, inverse, *out = ctx.saved_tensors
        grad = torch.ops.aten.hardtanh_backward(grads[0], out[0], 0, 6) if out else grads[0]
        grad = grad.contiguous(memory_format=torch.channels_last)
        (lanes, together), (gs, _) = _lanes(x), _lanes(grad)
        n = x.numel() // x.shape[1]
        # In evaluation mode PyTorch's gradients of weight and bias are the two sums that are needed, in one pass.
        _, d_weight, d_bias = torch.ops.aten.native_batch_norm_backward(
            gs, lanes, None, mean.repeat(together), inverse.repeat(together) ** -2, None, None, False, 0.0, [False, True, True]
        )
        d_weight, d_bias = d_weight.view(together, -1).sum(0), d_bias.view(together, -1).sum(0)
        # d_x = scale * (grad - d_bias / n - normalised * d_weight / n), sorted by what each number is multiplied with
        scale = weight * inverse
        of_x = -scale * inverse * d_weight / n
        constant = -scale * d_bias / n - of_x * mean
        d_x = torch.empty_like(x)
        d_lanes = torch.addcmul(_spread(constant, together), gs, _spread(scale, together), out=_lanes(d_x)[0])
        d_lanes.addcmul_(lanes, _spread(of_x, together))
        return d_x, d_weight, d_bias, None, None
