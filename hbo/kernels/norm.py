"""Batch norm that is fast where PyTorch's is slow: training on a CPU in channels-last order, with few
channels or large maps.

PyTorch's kernels walk the channels of one pixel at a time, which are 5 to 50 here, where a vector register
holds 16 and a cache line as many. Here a pixel is several: what PyTorch takes for channels are `together * C`
lanes, whose statistics are then joined. The arithmetic is the same (two passes, a biased variance to
normalise, an unbiased one to keep), and so are the parameters, their names and the running statistics.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

LANES = 64  # numbers in the inner loop, at least; up to 512 do equally well
# With at least a register's channels and fewer numbers than this PyTorch's kernels are no slower, and the
# calls here cost more.
REGISTER, SMALL = 16, 2**19


class BatchNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d`, (B, C, H, W) -> (B, C, H, W); evaluation, GPUs, compiled networks and other layouts
    take PyTorch's own.
    """

    def forward(self, input: Tensor) -> Tensor:
        return self.normalise(input) if self.is_faster(input) else super().forward(input)

    def is_faster(self, x: Tensor) -> bool:
        """Whether `normalise` can be used on x, and is quicker than PyTorch's own."""
        return (
            self.training
            and self.track_running_stats
            and self.momentum is not None
            and self.weight is not None
            and self.bias is not None
            and self.running_mean is not None
            and self.running_var is not None
            and self.num_batches_tracked is not None
            and can_use(x)
            and x.dtype == self.weight.dtype
            and x.shape[1] == self.num_features
            and (x.shape[1] < REGISTER or x.numel() >= SMALL)
        )

    def normalise(self, x: Tensor) -> Tensor:
        """Batch norm in training, where `is_faster` says so."""
        out, mean, var = _Normalise.apply(x, self.weight, self.bias, self.eps)  # pyright: ignore
        self.update_running_stats(mean, var, x.numel() // x.shape[1])
        return out

    def update_running_stats(self, mean: Tensor, var: Tensor, n: int) -> None:
        """Take a batch's mean and biased variance over n numbers into the running statistics."""
        assert self.momentum is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(var * (n / (n - 1)), self.momentum)


def can_use(x: Tensor) -> bool:
    """Whether the quick paths can be used on x, which they know as (B, C, H, W) on a CPU,
    in single or double precision.
    """
    return (
        not torch.compiler.is_compiling()
        and not _traced_or_transformed()
        and x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.float64)
        and x.dim() == 4
        and x.numel() > x.shape[1]  # one number a channel: PyTorch's refuses it in words of its own
        and x.is_contiguous(memory_format=torch.channels_last)
        and not x.is_contiguous()  # one channel or one pixel: either order is both, PyTorch decides
        and not torch.is_autocast_enabled("cpu")
    )


def _traced_or_transformed() -> bool:
    """Whether `torch.jit.trace`, a transform of `torch.func` or forward-mode differentiation is at work: they
    need PyTorch's own.
    """
    return (
        torch._C._get_tracing_state() is not None
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
    )


def _lanes(x: Tensor) -> tuple[Tensor, int]:
    """(B, C, H, W) in channels-last order as (1, together * C, B*H*W / together, 1) in
    channels-last order, no copy.
    """
    c = x.shape[1]
    pixels, together = x.numel() // c, 1
    while together * c < LANES and pixels % (2 * together) == 0:
        together *= 2
    rows = x.permute(0, 2, 3, 1).reshape(1, pixels // together, 1, together * c)
    return rows.permute(0, 3, 1, 2), together


def _spread(rows: list[Tensor], together: int) -> Tensor:
    """Rows of (C,), n of them -> (n, 1, together * C, 1, 1), in one copy: `repeat` takes ten times as long
    for so few numbers.
    """
    stacked = torch.stack(rows)
    return stacked.unsqueeze(1).expand(-1, together, -1).reshape(len(rows), 1, -1, 1, 1)


class _Normalise(torch.autograd.Function):
    """(x, weight, bias, eps) -> (normalised x, mean, biased variance); the statistics carry no gradient."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        lanes, together = _lanes(x)
        mean, var = torch.ops.aten.batch_norm_update_stats(lanes, None, None, 0.0)
        if together > 1:
            between, mean = torch.var_mean(mean.view(together, -1), 0, correction=0)
            var = var.view(together, -1).mean(0).add_(between)
        inverse = (var + eps).rsqrt_()
        scale = weight * inverse
        shift = torch.addcmul(bias, mean, scale, value=-1)
        spread = _spread([shift, scale, mean, inverse], together)
        out = torch.empty_like(x)  # a tensor of its own, not a view: what follows may work in place
        torch.addcmul(spread[0], lanes, spread[1], out=_lanes(out)[0])
        ctx.save_for_backward(x, weight, spread)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, var)
        return out, mean, var

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x, weight, spread = ctx.saved_tensors
        channels = x.shape[1]
        _, scale, mean, inverse = (row[:channels] for row in spread.view(4, -1))
        if torch.is_grad_enabled():  # create_graph=True: PyTorch's own gradients, which have gradients again
            needs = list(ctx.needs_input_grad[:3])
            own = torch.ops.aten.native_batch_norm_backward(
                grads[0], x, weight, None, None, mean, inverse, True, ctx.eps, needs
            )
            return *own, None
        grad = grads[0].contiguous(memory_format=torch.channels_last)
        (lanes, together), (gs, _) = _lanes(x), _lanes(grad)
        n = x.numel() // channels
        # PyTorch's gradients of weight and bias are the two sums that are needed, in one pass.
        _, d_weight, d_bias = torch.ops.aten.native_batch_norm_backward(
            gs,
            lanes,
            None,
            None,
            None,
            spread[2].view(-1),
            spread[3].view(-1),
            True,
            0.0,
            [False, True, True],
        )
        if together > 1:
            d_weight, d_bias = d_weight.view(together, -1).sum(0), d_bias.view(together, -1).sum(0)
        # d_x = scale * (grad - d_bias / n - normalised * d_weight / n), sorted by what each number is
        # multiplied with
        of_x = (scale * inverse).mul_(d_weight).mul_(-1 / n)
        constant = (scale * d_bias).mul_(-1 / n).addcmul_(of_x, mean, value=-1)
        terms = _spread([constant, of_x], together)
        d_x = torch.empty_like(x)
        d_lanes = torch.addcmul(terms[0], gs, spread[1], out=_lanes(d_x)[0])
        d_lanes.addcmul_(lanes, terms[1])
        return d_x, d_weight, d_bias, None
