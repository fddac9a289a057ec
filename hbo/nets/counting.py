"""Costs of a network: multiply-adds as the paper counts them, parameters, and element-wise work.

The paper's "FLOPs" are the multiply-adds of convolutions and of the linear layer only: batch norm, pooling,
upsampling, adding and concatenating are free. `elementwise` counts the numbers that those write. A product
with weights counts as a linear layer, however it is written (`F.linear`, `matmul`, `einsum`,
`nn.MultiheadAttention`). Attention also multiplies two maps with each other, which no network of the paper
does: `macs` includes that, like torch's counter and torchvision's published figures, and `attention_macs` is
this part of `macs`. An unknown operator that multiplies an image by weights is an error, since the count
would silently be too low.

One image goes through the network, but each convolution only returns an empty map of its output's shape
(shapes.py). A network on the meta device is counted there.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import conv_flop_count, flop_registry
from torch.utils.module_tracker import ModuleTracker

from hbo.errors import UserError, first_line
from hbo.nets.shapes import convolved, dry

aten = torch.ops.aten


@dataclass
class Cost:
    """Costs of one image through a network, or through one of its stages."""

    macs: int = 0
    """Multiply-adds of convolutions, linear layers and, in attention, of products of two maps."""
    params: int = 0
    """Trainable numbers."""
    activation_bytes: int = 0
    """float32 bytes that convolutions and linear layers write."""
    elementwise: int = 0
    """Numbers written by everything else: batch norm, activation,
    pooling, upsampling, adding, concatenating.
    """
    attention_macs: int = 0
    """The part of `macs` that are products of two maps; the paper's rule gives `macs - attention_macs`."""


# Products missing in torch's counter: a matrix or a vector times a vector.
PRODUCTS: dict[Any, Callable[..., int]] = {
    aten.mv: lambda a, x: 2 * a.numel(),
    aten.addmv: lambda _, a, x, **_k: 2 * a.numel(),
    aten.dot: lambda a, b: 2 * a.numel(),
    aten.vdot: lambda a, b: 2 * a.numel(),
    aten.addbmm: lambda _, a, b, **_k: 2 * a.numel() * b.shape[2],
}
# Operators with weights but without matrix products: norms, table look-ups and copies. Operators that torch
# tags as pointwise are free too.
FREE = {
    "native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training",
    "_batch_norm_with_update",
    "_batch_norm_no_update", "batch_norm_elemt", "cudnn_batch_norm", "miopen_batch_norm", "native_layer_norm",
    "native_group_norm", "_fused_rms_norm", "embedding", "index", "index_select", "gather", "take",
    "index_put", "index_put_",
    "index_copy", "index_add", "scatter", "scatter_add", "slice_scatter", "select_scatter", "cat", "stack",
    "copy", "copy_",
    "expand_as", "_prelu_kernel", "grid_sampler_2d", "constant_pad_nd",
}  # fmt: skip


class _Counter(TorchDispatchMode):
    """Counts every operator, for the whole network ("Global") and for each module that contains it.

    Args:
        model: its parameters and buffers, and tensors computed from them alone, are the weights.
        tracker: entered around this mode, which enters itself again to count the parts of an operator.
    """

    def __init__(self, model: nn.Module, tracker: ModuleTracker) -> None:
        super().__init__()
        self.tracker = tracker
        self.costs: dict[str, Cost] = {}
        # By their storages, which views share; kept alive, so that no later tensor gets the same address.
        self.weights: dict[int, Any] = {}
        for weight in (*model.parameters(), *model.buffers()):
            self._is_from_weights(weight)

    def _is_from_weights(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        self.weights[storage._cdata] = storage

    def _of_weights(self, values: list[Any]) -> list[bool]:
        return [t.untyped_storage()._cdata in self.weights for t in values if isinstance(t, Tensor)]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # skipping would import torch._dynamo, which takes seconds; nothing is compiled here

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        packet = func._overloadpacket
        known = packet in flop_registry or packet in PRODUCTS
        # Otherwise torch has done it.
        if not known and torch.is_inference_mode_enabled() and func._can_decompose():
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        inputs = tree_leaves((args, kwargs))
        of_weights = self._of_weights(inputs)
        if packet is aten.convolution:
            out = convolved(*args)
            flops = conv_flop_count([*args[0].shape], [*args[1].shape], [*out.shape], args[6])
        else:
            out = func(*args, **kwargs)
            flops = None
            if known:
                counter = flop_registry.get(packet)
                flops = (
                    counter(*args, **kwargs, out_val=out) if counter else PRODUCTS[packet](*args, **kwargs)
                )
            else:
                self._check(func, inputs, of_weights)
        if of_weights and all(of_weights):
            for made in tree_leaves(out):
                if isinstance(made, Tensor):
                    self._is_from_weights(made)
        self._add(func, out, flops, between_maps=not any(of_weights))
        return out

    def _check(self, func: Any, inputs: list[Any], of_weights: list[bool]) -> None:
        """Raise for an unknown operator that may multiply the image by weights."""
        # Weights of a quantised layer.
        packed = any(isinstance(value, torch.ScriptObject) for value in inputs)
        mixed = any(of_weights) and not all(of_weights)
        free = (
            func.is_view
            or torch.Tag.pointwise in func.tags
            or func._schema.name.removeprefix("aten::") in FREE
        )
        if packed or (mixed and not free):
            raise UserError(
                f"operator {func._schema.name}: has weights and an unknown number of multiply-adds, so the"
                " network cannot be counted; write it with convolutions, linear layers or matrix products"
            )

    def _add(self, func: Any, out: Any, flops: int | None, between_maps: bool) -> None:
        first = out[0] if isinstance(out, (tuple, list)) and out else out
        if not isinstance(first, Tensor):
            return
        for name in self.tracker.parents:
            cost = self.costs.setdefault(name, Cost())
            if flops is not None:
                cost.macs += flops // 2
                cost.attention_macs += flops // 2 * between_maps
                cost.activation_bytes += 4 * first.numel()
            elif not func.is_view:
                cost.elementwise += first.numel()


@contextmanager
def _written_out() -> Iterator[None]:
    """Attention as separate products: in evaluation torch would fuse it, its linear layers included."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def count(model: nn.Module, resolution: int | tuple[int, int]) -> dict[str, Cost]:
    """Costs by stage, in order, and "total" last.

    Args:
        model: any network of (B, 3, H, W); it is not changed.
        resolution: H = W, or (H, W).

    Raises:
        UserError: the network does not support that input size, or has an operator that cannot be counted.
    """
    size = (resolution, resolution) if isinstance(resolution, int) else resolution
    weight = next(model.parameters(), None)
    image = torch.zeros(1, 3, *size, device=None if weight is None else weight.device)
    counted, _ = pass_through(model, image)
    root = type(model).__name__
    costs: dict[str, Cost] = {}
    for name, stage in stages(model).items():
        cost = counted.get(f"{root}.{name}", Cost())
        cost.params = parameters(model.get_submodule(name))
        total = costs.setdefault(stage, Cost())
        costs[stage] = Cost(
            *(a + b for a, b in zip(asdict(total).values(), asdict(cost).values(), strict=True))
        )
    total = counted["Global"]
    total.params = parameters(model)
    return costs | {"total": total}


def pass_through(model: nn.Module, x: Tensor) -> tuple[dict[str, Cost], Tensor]:
    """Costs by module name, "Global" for the whole (without parameters), and the
    output, whose values are arbitrary.

    Raises:
        UserError: as `count`.
    """
    trainable = [weight for weight in model.parameters() if weight.requires_grad]
    for (
        weight
    ) in trainable:  # else the tracker asks for the gradient function of a weight that is a module's input
        weight.requires_grad_(False)
    try:
        with dry(model), _written_out(), ModuleTracker() as tracker, _Counter(model, tracker) as counter:
            out = model(x)
    except UserError:
        raise
    except Exception as error:  # another author's network that does not support this size
        size = " x ".join(map(str, x.shape[2:]))
        raise UserError(
            f"resolution={size}: not supported by {type(model).__name__} ({first_line(error)})"
        ) from None
    finally:
        for weight in trainable:
            weight.requires_grad_(True)
    return counter.costs, out


def stages(net: nn.Module) -> dict[str, str]:
    """Module name -> its stage: the rows of our tables, a detector's parts, else the network's own."""
    own: Any = getattr(net, "stages", None)
    if own is not None and type(net).__module__.startswith("hbo."):  # other networks' could be anything
        return own()
    labels = getattr(net, "labels", None)
    if isinstance(labels, list):
        blocks = {f"features.{i}": str(label) for i, label in enumerate(labels)}
        return blocks | {"head": "head", "classifier": "classifier"}
    parent, part = "", net
    while len(children := list(part.named_children())) == 1:  # an adapter around the network
        parent, part = f"{parent}{children[0][0]}.", children[0][1]
    return {parent + name: parent + name for name, _ in children}


def macs(model: nn.Module, resolution: int | tuple[int, int]) -> int:
    """Multiply-adds of one image, as the paper counts: only convolutions and linear layers (tables 2-7)."""
    return count(model, resolution)["total"].macs


def parameters(model: nn.Module) -> int:
    """Trainable numbers."""
    return sum(p.numel() for p in model.parameters())
