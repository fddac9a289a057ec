"""A block run once: each of its maps, and the operation that produced it.

    trace(HarmoniousBottleneck(36, 36, 1, 2, Block(k=2)), channels=36, size=56)

Shapes and multiply-adds are those of the module itself, so a switch that changes a block changes its trace.
"""

import copy
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hbo.block import BlurPool

X = "\N{MULTIPLICATION SIGN}"
# Functions that change nothing where the shape stays: a full slice, no padding, one tensor concatenated.
WITHOUT_EFFECT = ("getitem", "pad", "cat", "contiguous")


@dataclass(frozen=True)
class Step:
    """A map, (channels, rows, columns), and the operation that produced it from the steps `inputs`.

    `kind` is a key of `hbo.analysis.diagrams.KINDS`, "concat", "slice" (of channels), "pad" or "crop";
    `macs` are the multiply-adds of one image.
    """

    operation: str
    shape: tuple[int, int, int]
    inputs: tuple[int, ...] = ()
    kind: str = "input"
    macs: int = 0


class _Recorder(TorchFunctionMode):
    """Records modules without children through `call`, and as a mode the functions that run between them."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.number: dict[
            Tensor, int
        ] = {}  # tensor -> the step that produced it; a tensor hashes by identity
        self.inside = False  # inside a module, which is recorded as a whole
        self.add(x, (), "input", "Input")

    def add(self, out: Tensor, inputs: tuple[int, ...], kind: str, operation: str, macs: int = 0) -> None:
        self.number[out] = len(self.steps)
        self.steps.append(Step(operation, (out.shape[1], out.shape[2], out.shape[3]), inputs, kind, macs))

    def fold(self, out: Tensor, into: int, operation: str) -> None:
        """Say an operation that keeps the shape in the step before it."""
        self.steps[into] = replace(self.steps[into], operation=f"{self.steps[into].operation} {operation}")
        self.number[out] = into

    def call(self, module: nn.Module, x: Tensor) -> Tensor:
        self.inside = True
        out, source = type(module).forward(module, x), self.number[x]
        folded = (
            "BN" if isinstance(module, nn.BatchNorm2d) else "ReLU6" if isinstance(module, nn.ReLU6) else None
        )
        if folded and source == len(self.steps) - 1 > 0:
            self.fold(out, source, folded)
        elif out is not x:  # nn.Identity returns its input
            self.add(out, (source,), *_describe(module, x, out))
        self.inside = False
        return out

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if self.inside or not isinstance(out, Tensor) or out.numel() == 0:
            return out
        given = args[0] if isinstance(args[0], (list, tuple)) else args
        inputs = tuple(self.number[x] for x in given if isinstance(x, Tensor) and x in self.number)
        before, after, name = (
            [self.steps[i].shape for i in inputs],
            tuple(out.shape[1:]),
            func.__name__.strip("_"),
        )
        if before == [after] and name in WITHOUT_EFFECT:
            self.number[out] = inputs[0]
        elif before == [after] and inputs[0] == len(self.steps) - 1 > 0:
            self.fold(out, inputs[0], name)
        elif name == "getitem" and after[0] < before[0][0]:
            self.add(out, inputs, "slice", f"{'last' if args[1][1].start else 'first'} {after[0]} channels")
        elif inputs:
            known = {"add": ("add", "EltAdd"), "cat": ("concat", "Concat"), "getitem": ("crop", "Crop")}
            known["pad"] = "pad", f"{after[0] - before[0][0]} zero channels"
            self.add(out, inputs, *known.get(name, ("other", name)))
        return out


def _describe(module: nn.Module, x: Tensor, out: Tensor) -> tuple[str, str, int]:
    """Kind, operation and multiply-adds of a module without children that maps `x` to `out`, both
    (1, C, H, W).
    """
    growth, shrinkage = out.shape[2] // x.shape[2], round(x.shape[2] / out.shape[2])
    by = f"\N{NO-BREAK SPACE}/{shrinkage}" * (shrinkage > 1)  # labels break at spaces
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, BlurPool)):
        _, per_group, rows, columns = module.weight.shape
        kernel, weights = f"{rows}{X}{columns}", per_group * rows * columns
        if isinstance(module, nn.ConvTranspose2d):
            return "upsample", f"Upsample {X}{growth} transposed {kernel}", x.numel() * weights
        if isinstance(module, BlurPool):
            return "pool", f"BlurPool {kernel}{by}", out.numel() * weights
        dense = ("pointwise", "PWConv") if rows == columns == 1 else ("other", f"Conv {kernel}")
        kind, name = ("depthwise", f"DWConv {kernel}") if module.groups == x.shape[1] > 1 else dense
        return kind, name + by, out.numel() * weights
    if isinstance(module, (nn.AvgPool2d, nn.MaxPool2d)):
        name = "AvgPool" if isinstance(module, nn.AvgPool2d) else "MaxPool"
        return "pool", f"{name} {module.kernel_size}{X}{module.kernel_size}", 0
    if growth > 1:  # nn.Upsample, or einops' Rearrange, which has no mode
        return "upsample", f"Upsample {X}{growth} {getattr(module, 'mode', 'pixelshuffle')}", 0
    return "other", type(module).__name__, 0


def trace(module: nn.Module, channels: int, size: int) -> list[Step]:
    """The maps of a block in the order of computation: the input (1, channels, size,
    size) first, the output last.

    Batch norm and ReLU6 belong to the operation before them; operations without effect or use are omitted.

    Raises:
        UserError: the map is too small for the block.
    """
    module = copy.deepcopy(module).eval()  # the original keeps its mode and its methods
    x = torch.zeros(1, channels, size, size)  # shapes do not depend on the values
    recorder = _Recorder(x)
    for leaf in [m for m in module.modules() if not any(m.children())]:
        leaf.forward = partial(recorder.call, leaf)
    with torch.no_grad(), recorder:
        out = module(x)
    steps = recorder.steps[: recorder.number[out] + 1]
    used = [i for i in range(len(steps)) if i == len(steps) - 1 or any(i in step.inputs for step in steps)]
    return [replace(steps[i], inputs=tuple(used.index(j) for j in steps[i].inputs)) for i in used]
