"""The paper's figures 2, 3 and 4, drawn from the modules, so that a switch that
changes a block changes its picture.

    figure3(Block(k=2, upsample="pixelshuffle")).savefig("block.pdf")

`trace` runs a block once and records every map; `draw` puts the maps in a row, each a cuboid with width for
channels and height for rows, with the shortcuts above them. Lengths are in inches.
"""

import copy
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import pairwise, product

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyArrowPatch, Patch, Polygon
from matplotlib.path import Path
from matplotlib.textpath import TextPath
from matplotlib.transforms import Bbox
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hbo.analysis.figures import style
from hbo.block import Block, BlurPool, HarmoniousBottleneck, InvertedResidual

X = "\N{MULTIPLICATION SIGN}"
KINDS = {  # kind -> Okabe and Ito's colour for the colour-blind, hatch for print in grey, legend
    "input": ("#D0D0D0", "", "input"),
    "depthwise": ("#56B4E9", "////", "depthwise convolution"),
    "pointwise": ("#E69F00", "", "pointwise convolution"),
    "upsample": ("#009E73", r"\\\\", "upsampling"),
    "pool": ("#CC79A7", "xxxx", "pooling"),
    "add": ("#F0E442", "++", "sum"),
    "other": ("#FFFFFF", "....", "other"),
}
# Width of a figure, unless a row needs more.
WIDTH, MARGIN, TITLE, GAP, LEGEND = (
    style.WIDTHS["text"],
    0.06,
    0.2,
    0.15,
    0.25,
)
HEIGHT = 8.5  # height of a page, minus a caption; the limit for figures that fit
TALLEST, DEPTH = 0.72, 0.17  # largest front of a cuboid; depth of a cuboid per column
FONT, LINE, PAD = 7, 0.115, 0.05  # of a label: size in points, height of a line, space around it
ARROW, NODE, LANE = 0.15, 0.055, 0.19  # shortest arrow, radius of a joint, distance between shortcuts


@dataclass(frozen=True)
class Step:
    """A map, (channels, rows, columns), and the operation that produced it from the steps `inputs`.

    `kind` is a key of `KINDS`, "concat", "slice" (of channels), "pad" or "crop"; `macs` are the multiply-adds
    of one image.
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

    def call(self, module: nn.Module, x: Tensor) -> Tensor:
        self.inside = True
        out, source = type(module).forward(module, x), self.number[x]
        folded = (
            "BN" if isinstance(module, nn.BatchNorm2d) else "ReLU6" if isinstance(module, nn.ReLU6) else None
        )
        if folded and source == len(self.steps) - 1 > 0:
            self.steps[source] = replace(
                self.steps[source], operation=f"{self.steps[source].operation} {folded}"
            )
            self.number[out] = source
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
        if before == [after]:  # no effect: a full slice, zero padding, concatenation of one tensor
            self.number[out] = inputs[0]
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


def _width(text: str) -> float:
    return _width_in(text, style.font())


@cache
def _width_in(text: str, font: str) -> float:
    prop = FontProperties(family=[font])
    return (
        max(TextPath((0, 0), line, size=FONT, prop=prop).get_extents().width for line in text.split("\n"))
        / 72
    )


def _sized(step: Step) -> str:
    return f"{step.shape[0]}{X}\n{step.shape[1]}{X}{step.shape[2]}"


def _box(step: Step, scale: tuple[float, float], left: float = 0, middle: float = 0) -> Bbox:
    height = (step.shape[1] + DEPTH * step.shape[2]) * scale[1]
    width = max(step.shape[0] * scale[0], 0.02) + DEPTH * step.shape[2] * scale[1]
    return Bbox.from_bounds(left, middle - height / 2, width, height)


def _paths(steps: list[Step]) -> tuple[list[int], list[tuple[int, int, list[int], str]]]:
    """The main path; and the shortcuts: the step each joins, the step it leaves, its maps, its label; the
    last joint first.
    """
    path, shortcuts = [len(steps) - 1], []
    while steps[path[0]].inputs:  # the input computed last is on the longest path
        path.insert(0, max(steps[path[0]].inputs, key=lambda i: (steps[i].kind not in ("slice", "pad"), i)))
    for before, join in [*pairwise(path)][::-1]:
        for source in set(steps[join].inputs) - {before}:
            via, words = [], []
            while source not in path:
                cut = steps[source].kind in ("slice", "pad")
                (words if cut else via).insert(0, steps[source].operation if cut else source)
                source = steps[source].inputs[0]
            if not any(word.startswith(("first", "last")) for word in words):
                words.insert(0, f"all {steps[[source, *via][-1]].shape[0]} channels")
            shortcuts.append((join, source, via, ", ".join(words)))
    return path, shortcuts


def _lay_out(
    steps: list[Step], scale: tuple[float, float], width: float = 0
) -> tuple[dict[int, Bbox], float, list[float]]:
    """The main path's cuboids, spread over `width`; the width they need; the positions of bottom, shortcuts'
    middle and top.
    """
    path, shortcuts = _paths(steps)
    label = _width(_sized(steps[0])) / 2
    last = _box(steps[0], scale, max(label - _box(steps[0], scale).width / 2, 0))
    lefts, low, top = [last.x0], last.y0, last.y1
    reached = last.x0 + last.width / 2  # needed by the operations' labels, and here by a rising shortcut
    for i in path[1:]:
        box, text = _box(steps[i], scale), _width(steps[i].operation.replace(" ", "\n")) / 2
        end, label = max(last.x1, last.x0 + last.width / 2 + label + PAD), _width(_sized(steps[i])) / 2
        arrow = 2 * (ARROW + NODE) if len(steps[i].inputs) > 1 else ARROW
        lefts.append(
            max(last.x1 + arrow, end + max(label - box.width / 2, 0), 2 * (reached + PAD + text) - last.x1)
        )
        reached = (last.x1 + lefts[-1]) / 2 + text
        low, top = (
            min(low, box.y0),
            max(top, max(last.y1, box.y1) + PAD + LINE * (steps[i].operation.count(" ") + 1)),
        )
        last = _box(steps[i], scale, lefts[-1])
    needed = max(last.x1, last.x0 + last.width / 2 + label, reached)
    spare = max(width - needed, 0) / max(len(path) - 1, 1)
    boxes = {
        i: _box(steps[i], scale, left + n * spare)
        for n, (i, left) in enumerate(zip(path, lefts, strict=True))
    }
    reach, sides = (
        LANE * (len(shortcuts) - 1) / 2,
        [_box(steps[i], scale).y1 for _, _, via, _ in shortcuts for i in via],
    )
    lanes = top + PAD + max([reach, *(side + PAD + LINE for side in sides)])
    top = lanes + max([reach + PAD + LINE, *sides]) if shortcuts else top
    return boxes, needed, [low - PAD - 2 * LINE, lanes, top]


def draw(ax: Axes, steps: list[Step], title: str, scale: tuple[float, float]) -> None:
    """Draw a traced block from left to right; `scale` is inches per channel and per row.
    The axes' units become inches.
    """
    width, height = ax.bbox.width / ax.figure.dpi, ax.bbox.height / ax.figure.dpi
    path, shortcuts = _paths(steps)
    boxes, _, (low, lanes, _) = _lay_out(steps, scale, width)
    ax.set(xlim=(0, width), ylim=(low, low + height))
    ax.set_axis_off()
    ax.text(0, low + height, title, fontsize=FONT + 1, weight="bold", va="top")
    _map(ax, steps, 0, boxes[0])
    joints = {i: (boxes[before].x1 + boxes[i].x0) / 2 for before, i in pairwise(path)}
    for before, i in pairwise(path):
        last, box, start = boxes[before], boxes[i], boxes[before].x1
        _map(ax, steps, i, box)
        _text(ax, joints[i], max(last.y1, box.y1) + PAD, steps[i].operation.replace(" ", "\n"))
        if len(steps[i].inputs) > 1:
            _arrow(ax, (start, 0), (joints[i] - NODE, 0))
            ax.plot(joints[i], 0, marker="o", ms=144 * NODE, mfc="white", mec="black", mew=0.8, zorder=4)
            sign, start = r"$\mathrm{C}$" if steps[i].kind == "concat" else "$+$", joints[i] + NODE
            ax.plot(joints[i], 0, marker=sign, color="black", ms=5, mew=0, zorder=5)
        _arrow(ax, (start, 0), (box.x0, 0))
    for n, (join, source, via, label) in enumerate(shortcuts):
        x = boxes[source].x0 + boxes[source].width / 2
        line = [(x, boxes[source].y1)]
        for i in via:
            if i not in boxes:
                boxes[i] = _box(steps[i], scale, x + _width(steps[i].operation) + 4 * PAD, lanes)
                _map(ax, steps, i, boxes[i], "")
                _text(ax, (x + boxes[i].x0) / 2, lanes + PAD / 2, steps[i].operation)
                _arrow(ax, *line, (x, lanes), (boxes[i].x0, lanes))
            x, line = boxes[i].x1 + PAD, [(boxes[i].x1, lanes), (boxes[i].x1 + PAD, lanes)]
        y = lanes + LANE * ((len(shortcuts) - 1) / 2 - n)
        _text(ax, x + PAD, y + PAD / 2, label, ha="left")
        _arrow(ax, *line, (x, y), (joints[join], y), (joints[join], NODE))


def _map(ax: Axes, steps: list[Step], i: int, box: Bbox, separator: str = "\n") -> None:
    """Draw a map; a concatenation shows its parts in the colours of their maps."""
    channels, rows, columns = steps[i].shape
    d = box.height * DEPTH * columns / (rows + DEPTH * columns)
    x, low, top = box.x0, box.y0, box.y1 - d
    for part in steps[i].inputs if steps[i].kind == "concat" else (i,):
        right = x + (box.width - d) * steps[part].shape[0] / channels
        while steps[part].kind not in KINDS:
            part = steps[part].inputs[0]
        colour, hatch, _ = KINDS[steps[part].kind]
        side = [(right, low), (right + d, low + d), (right + d, top + d), (right, top)]
        lid = [(x, top), (right, top), (right + d, top + d), (x + d, top + d)]
        front = [(x, low), (right, low), (right, top), (x, top)]
        for face in (side, lid, front):
            ax.add_patch(
                Polygon(face, fc=colour, ec="black", lw=0.5, hatch=hatch * (face is front), joinstyle="round")
            )
        x = right
    _text(ax, box.x0 + box.width / 2, low - PAD, _sized(steps[i]).replace("\n", separator), va="top")


def _text(ax: Axes, x: float, y: float, text: str, ha: str = "center", va: str = "bottom") -> None:
    ground = {"fc": "white", "ec": "none", "pad": 0.6}  # hides the line behind the text
    ax.text(x, y, text, fontsize=FONT, ha=ha, va=va, linespacing=1.0, bbox=ground, zorder=6)


def _arrow(ax: Axes, *points: tuple[float, float]) -> None:
    ax.add_patch(
        FancyArrowPatch(
            path=Path(points), arrowstyle="-|>", mutation_scale=5, lw=0.8, color="black", snap=True
        )
    )


def _fitted(traces: list[list[Step]]) -> tuple[tuple[float, float], float, list[float]]:
    """The largest scale at which the blocks fit a page and its text width, else the smallest; the width, and
    each block's height.
    """
    most, tall = (max(step.shape[axis] for steps in traces for step in steps) for axis in (0, 1))
    found = []
    for tallest, widest in product((TALLEST, 0.6, 0.5), (0.8, 0.6, 0.5, 0.4, 0.3)):  # of the cuboids
        scale = widest / most, tallest / tall
        laid_out = [_lay_out(steps, scale) for steps in traces]
        width = max(WIDTH, *(needed + 2 * MARGIN for _, needed, _ in laid_out))
        heights = [top - low + TITLE for _, _, (low, _, top) in laid_out]
        found.append((scale, width, heights))
        if width == WIDTH and sum(heights) + GAP * len(traces) + LEGEND <= HEIGHT:
            break
    return found[-1]


def _figure(blocks: list[tuple[str, nn.Module]], channels: int, size: int) -> Figure:
    """Blocks one below another at one scale, with a legend."""
    traces = [trace(module, channels, size) for _, module in blocks]
    every = [step for steps in traces for step in steps]
    with style.styled():
        scale, width, heights = _fitted(traces)
        height = sum(heights) + GAP * len(traces) + LEGEND
        figure, bottom = style.Picture((width, height)), height + GAP - MARGIN
        for n, ((name, _), steps, h) in enumerate(zip(blocks, traces, heights, strict=True)):
            bottom -= h + GAP
            ax = figure.add_axes((MARGIN / width, bottom / height, 1 - 2 * MARGIN / width, h / height))
            draw(
                ax,
                steps,
                f"({chr(ord('a') + n)}) {name}: {sum(s.macs for s in steps) / 1e6:.2f} M multiply-adds",
                scale,
            )
        kinds = [value for kind, value in KINDS.items() if any(step.kind == kind for step in every)]
        handles = [
            Patch(fc=colour, ec="black", lw=0.5, hatch=2 * hatch, label=name) for colour, hatch, name in kinds
        ]
        figure.legend(
            handles=handles, loc="lower center", ncols=len(kinds), fontsize=FONT, frameon=False, borderpad=0.2
        )
    return figure


def figure2(block: Block = Block(), channels: int = 36, size: int = 56) -> Figure:
    """MobileNetV2's block, whose t is 6, above the harmonious bottleneck, whose t is 2."""
    ours = (
        f"Harmonious bottleneck, t = 2, k = {block.k}",
        HarmoniousBottleneck(channels, channels, 1, 2, block),
    )
    return _figure(
        [("Inverted residual, t = 6", InvertedResidual(channels, channels, 1, 6)), ours], channels, size
    )


def figure3(block: Block = Block(), channels: int = 36, out_channels: int = 72, size: int = 56) -> Figure:
    """The inverted residual and the harmonious bottleneck, each at strides 1 and 2; at
    stride 2 the channels change too.
    """
    strides = ((1, channels), (2, out_channels))
    residual = [
        (f"Inverted residual, t = 6, stride {s}", InvertedResidual(channels, cout, s, 6))
        for s, cout in strides
    ]
    name = f"Harmonious bottleneck, t = 2, k = {block.k}"
    ours = [(f"{name}, stride {s}", HarmoniousBottleneck(channels, cout, s, 2, block)) for s, cout in strides]
    return _figure([*residual, *ours], channels, size)


def figure4(
    block: Block = Block(), depths: tuple[int, ...] = (1, 2, 3), channels: int = 36, size: int = 56
) -> Figure:
    """Harmonious bottlenecks with these numbers of contraction units, one below another."""
    make = lambda k: HarmoniousBottleneck(channels, channels, 1, 2, replace(block, k=k))
    return _figure([(f"k = {k} ({2**k}{X})", make(k)) for k in depths], channels, size)
