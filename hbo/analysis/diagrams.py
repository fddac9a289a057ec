"""The paper's figures 2, 3 and 4, drawn from the modules: what a switch changes in a block, it changes in its picture.

    figure4(Block(k=2, upsample="pixelshuffle")).savefig("block.pdf")

`trace` runs a block once and notes every map; `draw` sets the maps in a row, left to right, each a cuboid as wide as
its channels and as high as its rows, and leads the shortcuts over them. Lengths are inches, text is in points.
"""

from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import torch
from einops.layers.torch import Rearrange
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, Patch, Polygon
from matplotlib.path import Path
from matplotlib.textpath import TextPath
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hbo.block import Block, BlurPool, HarmoniousBottleneck, InvertedResidual

X = "\N{MULTIPLICATION SIGN}"
KINDS = {  # kind -> colour (Okabe and Ito's, told apart by the colour-blind), hatch (told apart in grey), legend
    "input": ("#D0D0D0", "", "input"),
    "depthwise": ("#56B4E9", "////", "depthwise convolution"),
    "pointwise": ("#E69F00", "", "pointwise convolution"),
    "conv": ("#D55E00", "", "convolution"),
    "upsample": ("#009E73", r"\\\\", "upsampling"),
    "pool": ("#CC79A7", "xxxx", "pooling"),
    "add": ("#F0E442", "", "sum"),
    "slice": ("#FFFFFF", "", "cut"),
    "pad": ("#FFFFFF", "....", "padding"),
    "other": ("#FFFFFF", "++", "other"),
}
WIDTH, MARGIN = 7.0, 0.06  # of a figure; a row of many maps makes it wider
TALLEST, WIDEST = 0.72, 0.8  # of a cuboid
DEPTH = 0.17  # of a cuboid, over its columns
FONT, LINE, PAD = 7, 0.115, 0.05  # of a label: its size, the height of its lines, the space about it
ARROW, NODE, LANE = 0.15, 0.055, 0.19  # the shortest arrow, the radius of a joint, from shortcut to shortcut


@dataclass(frozen=True)
class Step:
    """One map and the operation that made it."""

    operation: str
    """Such as "DWConv 5 x 5 /2"; a label breaks at its spaces."""
    shape: tuple[int, int, int]
    """Channels, rows, columns."""
    inputs: tuple[int, ...] = ()
    """The steps whose maps went in, by number; 0 is the block's input."""
    kind: str = "input"
    """A key of `KINDS`, or "concat"."""
    after: tuple[str, ...] = ()
    """What followed in place: "BN", "ReLU6"."""
    macs: int = 0
    """Multiply-adds of one image, if it is a convolution."""


class _Recorder(TorchFunctionMode):
    """Hooks report the modules without children, this mode the functions that run between them."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.steps = [Step("Input", _shape(x))]
        self.number = {id(x): 0}  # tensor -> the step that made it
        self.kept = [x]  # for the id of a tensor that is gone may come again
        self.inside = False  # a module that reports for itself

    def enter(self, _module: nn.Module, _args: Any) -> None:
        self.inside = True

    def leave(self, module: nn.Module, args: Any, out: Tensor) -> None:
        source, folded = self.number[id(args[0])], {nn.BatchNorm2d: "BN", nn.ReLU6: "ReLU6"}.get(type(module))
        if folded and source == len(self.steps) - 1 > 0:
            self.steps[source] = replace(self.steps[source], after=(*self.steps[source].after, folded))
            self._remember(out, source)
        elif out is not args[0]:  # nn.Identity returns what it was given
            kind, operation, macs = _describe(module, args[0], out)
            self._add(Step(operation, _shape(out), (source,), kind, macs=macs), out)
        self.inside = False

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if not self.inside and isinstance(out, Tensor) and out.numel():
            given = args[0] if isinstance(args[0], (list, tuple)) else args
            sources = tuple(self.number[id(t)] for t in given if id(t) in self.number)
            name = func.__name__.strip("_")
            if len(sources) == 1 and self.steps[sources[0]].shape == _shape(out):
                self._remember(out, sources[0])  # a slice of everything, padding by nothing, concatenation with nothing
            elif sources:
                self._function(name, args, sources, out)
        return out

    def _function(self, name: str, args: Any, sources: tuple[int, ...], out: Tensor) -> None:
        before, shape = self.steps[sources[0]].shape, _shape(out)
        kind, operation = {"add": ("add", "EltAdd"), "cat": ("concat", "Concat")}.get(name, ("other", name))
        if name == "pad":
            kind, operation = "pad", f"{shape[0] - before[0]} zero channels"
        if name == "getitem" and shape[0] < before[0]:
            start = args[1][1].start or 0
            end = "first" if start == 0 else "last" if start + shape[0] == before[0] else "inner"
            kind, operation = "slice", f"{end} {shape[0]} channels"
        elif name == "getitem":
            kind, operation = "slice", "Crop"
        self._add(Step(operation, shape, sources, kind), out)

    def _add(self, step: Step, out: Tensor) -> None:
        self.steps.append(step)
        self._remember(out, len(self.steps) - 1)

    def _remember(self, out: Tensor, number: int) -> None:
        self.number[id(out)] = number
        self.kept.append(out)


def _shape(x: Tensor) -> tuple[int, int, int]:
    return x.shape[1], x.shape[2], x.shape[3]


def _describe(module: nn.Module, x: Tensor, out: Tensor) -> tuple[str, str, int]:
    """Kind, operation and multiply-adds of a module without children that made `out` of `x`, (1, C, H, W) both."""
    growth, shrinkage = out.shape[2] // x.shape[2], round(x.shape[2] / out.shape[2])
    by = f"\N{NO-BREAK SPACE}/{shrinkage}" * (shrinkage > 1)  # stays on the line of the kernel
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, BlurPool)):
        first, per_group, rows, columns = module.weight.shape
        kernel = f"{rows}{X}{columns}"
        if isinstance(module, nn.ConvTranspose2d):
            return "upsample", f"Upsample {X}{growth} transposed {kernel}", x.numel() * per_group * rows * columns
        macs = out.numel() * per_group * rows * columns
        if isinstance(module, BlurPool):
            return "pool", f"BlurPool {kernel}{by}", macs
        if module.groups == first == x.shape[1] > 1:
            return "depthwise", f"DWConv {kernel}{by}", macs
        return ("pointwise", f"PWConv{by}", macs) if rows == columns == 1 else ("conv", f"Conv {kernel}{by}", macs)
    if isinstance(module, (nn.AvgPool2d, nn.MaxPool2d)):
        return "pool", f"{type(module).__name__[:-2]} {module.kernel_size}{X}{module.kernel_size}", 0
    if isinstance(module, Rearrange):
        return "upsample", f"Upsample {X}{growth} pixel- shuffle", 0
    if isinstance(module, nn.Upsample):
        return "upsample", f"Upsample {X}{growth} {module.mode}", 0
    return "other", type(module).__name__, 0


def trace(module: nn.Module, channels: int, size: int) -> list[Step]:
    """The maps of a block in the order of their making, the input first, the output last.

    Batch norm and ReLU6 belong to the operation before them; what changes nothing, or goes nowhere, is left out.

    Args:
        module: any composition of modules that take and return one (B, C, H, W); it is left as it is.
        channels, size: of the input, (1, channels, size, size).

    Raises:
        UserError: the map is too small for the block.
    """
    x = torch.zeros(1, channels, size, size)  # shapes do not depend on the values
    recorder = _Recorder(x)
    leaves = [m for m in module.modules() if not any(m.children())]
    hooks = [h for m in leaves for h in (m.register_forward_pre_hook(recorder.enter), m.register_forward_hook(recorder.leave))]
    modes = {m: m.training for m in module.modules()}
    module.eval()
    try:
        with torch.no_grad(), recorder:
            out = module(x)
    finally:
        for hook in hooks:
            hook.remove()
        for m, training in modes.items():
            m.training = training
    steps, used = recorder.steps, {0, recorder.number[id(out)]}
    for i in range(max(used), 0, -1):
        used |= set(steps[i].inputs) if i in used else set()
    number = {old: new for new, old in enumerate(sorted(used))}
    return [replace(steps[old], inputs=tuple(number[i] for i in steps[old].inputs)) for old in number]


class Scale(NamedTuple):
    """Inches of a channel and of a row."""

    channel: float
    row: float


class _Box(NamedTuple):
    """A cuboid: the left of its front, the width and height of that, and how far it recedes to the upper right."""

    x: float
    w: float
    h: float
    d: float

    @property
    def right(self) -> float:
        return self.x + self.w + self.d

    @property
    def centre(self) -> float:
        return (self.x + self.right) / 2

    @property
    def top(self) -> float:
        """Above the middle; as far below it is the bottom."""
        return (self.h + self.d) / 2


class _Shortcut(NamedTuple):
    join: int  # the step where it ends
    source: int  # the step on the main path where it begins
    via: tuple[int, ...]  # maps on the way
    label: str


@cache
def _width(text: str) -> float:
    return max(TextPath((0, 0), line, size=FONT).get_extents().width for line in text.split("\n")) / 72


def _map_label(step: Step) -> str:
    channels, rows, columns = step.shape
    return f"{channels}{X}\n{rows}{X}{columns}"


def _operation_label(step: Step) -> str:
    return "\n".join([*step.operation.split(" "), *step.after])


def _box(step: Step, scale: Scale, x: float = 0) -> _Box:
    channels, rows, columns = step.shape
    return _Box(x, max(channels * scale.channel, 0.02), rows * scale.row, DEPTH * columns * scale.row)


def _paths(steps: list[Step]) -> tuple[list[int], list[_Shortcut]]:
    """The main path, which is the longest, and what joins it from the side, the last joint first."""
    depth: list[int] = []
    for step in steps:
        depth.append(1 + max((depth[i] for i in step.inputs), default=-1))
    path = [len(steps) - 1]
    while steps[path[-1]].inputs:
        path.append(max(steps[path[-1]].inputs, key=depth.__getitem__))
    shortcuts = []
    for join, before in zip(path, path[1:], strict=False):
        for source in set(steps[join].inputs) - {before}:
            via, words = [], []
            while source not in path:
                cut = steps[source].kind in ("slice", "pad")
                (words if cut else via).insert(0, steps[source].operation if cut else source)
                source = steps[source].inputs[0]
            if not any("channels" in word and "zero" not in word for word in words):
                words.insert(0, f"all {steps[([source, *via])[-1]].shape[0]} channels")
            shortcuts.append(_Shortcut(join, source, tuple(via), ", ".join(words)))
    return path[::-1], shortcuts


def _lay_out(steps: list[Step], scale: Scale, width: float = 0.0) -> tuple[dict[int, _Box], float]:
    """The main path's cuboids, as close as their labels allow or spread over `width`, and the width they take."""
    path, shortcuts = _paths(steps)
    boxes: dict[int, _Box] = {}
    reached = 0.0  # by the operations' labels so far
    for before, i in zip([None, *path], path, strict=False):
        box, label = _box(steps[i], scale), _width(_map_label(steps[i])) / 2
        overhang = max(label - box.right / 2, 0)
        if before is None:
            boxes[i] = box._replace(x=overhang)
        else:
            last, text = boxes[before], _width(_operation_label(steps[i])) / 2
            end = max(last.right, last.centre + _width(_map_label(steps[before])) / 2 + PAD)
            arrow = 2 * ARROW + 2 * NODE if len(steps[i].inputs) > 1 else ARROW
            x = max(last.right + arrow, end + overhang, 2 * (reached + PAD + text) - last.right)
            boxes[i] = box._replace(x=x)
            reached = (last.right + x) / 2 + text
        if any(s.source == i for s in shortcuts):
            reached = max(reached, boxes[i].centre)  # a line rises from here
    needed = max(boxes[path[-1]].right + overhang, reached)
    spare = max(width - needed, 0) / max(len(path) - 1, 1)
    return {i: box._replace(x=box.x + n * spare) for n, (i, box) in enumerate(boxes.items())}, needed


def _levels(steps: list[Step], scale: Scale) -> tuple[float, float, float]:
    """Above the middle of the row: the shortcuts' middle, the top of everything; and, below it, the bottom."""
    path, shortcuts = _paths(steps)
    tops = {i: _box(steps[i], scale).top for i in path}
    labels = [
        max(tops[a], tops[b]) + PAD + LINE * (_operation_label(steps[b]).count("\n") + 1)
        for a, b in zip(path, path[1:], strict=False)
    ]
    top, bottom = max([*tops.values(), *labels]), max(tops.values()) + PAD + 2 * LINE
    if not shortcuts:
        return top, top, bottom
    sides = [_box(steps[i], scale).top for s in shortcuts for i in s.via]
    reach = LANE * (len(shortcuts) - 1) / 2  # of the outer shortcuts, from their middle
    low = max([reach, *(side + PAD + LINE for side in sides)])
    return top + PAD + low, top + PAD + low + max([reach + PAD + LINE, *sides]), bottom


def draw(ax: Axes, steps: list[Step], title: str, scale: Scale) -> None:
    """A traced block, left to right, its shortcuts above; the axes' size in inches are its coordinates."""
    figure = ax.get_figure()
    assert isinstance(figure, Figure)
    frame = ax.get_position()
    width, height = frame.width * figure.get_figwidth(), frame.height * figure.get_figheight()
    lanes, _, bottom = _levels(steps, scale)
    ax.set(xlim=(0, width), ylim=(-bottom, height - bottom))
    ax.set_axis_off()
    ax.text(0, height - bottom, title, fontsize=FONT + 1, weight="bold", va="top")
    path, shortcuts = _paths(steps)
    boxes, _ = _lay_out(steps, scale, width)
    for before, i in zip([None, *path], path, strict=False):
        box = boxes[i]
        _cuboid(ax, steps, i, box, 0)
        _text(ax, box.centre, -box.top - PAD, _map_label(steps[i]), va="top")
        if before is None:
            continue
        last, joint = boxes[before], (boxes[before].right + box.x) / 2
        _text(ax, joint, max(last.top, box.top) + PAD, _operation_label(steps[i]))
        if len(steps[i].inputs) > 1:
            _arrow(ax, (last.right, 0), (joint - NODE, 0))
            _node(ax, joint, steps[i].kind)
        _arrow(ax, (joint + NODE if len(steps[i].inputs) > 1 else last.right, 0), (box.x, 0))
    ends: dict[tuple[int, ...], float] = {}  # of the maps on the way, drawn once
    for n, s in enumerate(shortcuts):
        source = boxes[s.source]
        start = [(source.centre, source.top), (source.centre, lanes)]
        x = source.centre
        for done, i in enumerate(s.via, 1):
            if s.via[:done] not in ends:
                label = " ".join([steps[i].operation, *steps[i].after])
                box = _box(steps[i], scale, x + _width(label) + 4 * PAD)
                _arrow(ax, *start, (box.x, lanes))
                _text(ax, (x + box.x) / 2, lanes + PAD / 2, label)
                _cuboid(ax, steps, i, box, lanes)
                _text(ax, box.centre, lanes - box.top - PAD, _map_label(steps[i]).replace("\n", ""), va="top")
                ends[s.via[:done]] = box.right
            x = ends[s.via[:done]]
            start = [(x, lanes), (x + PAD, lanes)]
        y = lanes + LANE * ((len(shortcuts) - 1) / 2 - n)
        joint = boxes[s.join].x - (boxes[s.join].x - boxes[path[path.index(s.join) - 1]].right) / 2
        _arrow(ax, *start, (start[-1][0], y), (joint, y), (joint, NODE))
        _text(ax, start[-1][0] + PAD, y + PAD / 2, s.label, ha="left")


def _cuboid(ax: Axes, steps: list[Step], i: int, box: _Box, middle: float) -> None:
    """A map; a concatenation shows what it is made of, in the colours of the maps that it came from."""
    parts = steps[i].inputs if steps[i].kind == "concat" else (i,)
    x, bottom, d = box.x, middle - box.top, box.d
    top = bottom + box.h
    for n, part in enumerate(parts):
        w = box.w * steps[part].shape[0] / steps[i].shape[0]
        while part and steps[part].kind in ("slice", "pad"):
            part = steps[part].inputs[0]
        colour, hatch, _ = KINDS.get(steps[part].kind, KINDS["other"])
        faces = [([(x, bottom), (x + w, bottom), (x + w, top), (x, top)], hatch)]
        faces.append(([(x, top), (x + w, top), (x + w + d, top + d), (x + d, top + d)], ""))
        if n == len(parts) - 1:
            faces.append(([(x + w, bottom), (x + w + d, bottom + d), (x + w + d, top + d), (x + w, top)], ""))
        for corners, fill in faces:
            ax.add_patch(Polygon(corners, facecolor=colour, edgecolor="black", linewidth=0.5, hatch=fill, joinstyle="round"))
        x += w


def _text(ax: Axes, x: float, y: float, text: str, ha: str = "center", va: str = "bottom") -> None:
    ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}  # a line that passes behind it stops short of it
    ax.text(x, y, text, fontsize=FONT, ha=ha, va=va, linespacing=1.0, bbox=ground, zorder=4)


def _arrow(ax: Axes, *points: tuple[float, float]) -> None:
    ax.add_patch(FancyArrowPatch(path=Path(points), arrowstyle="-|>", mutation_scale=5, linewidth=0.8, color="black", zorder=3))


def _node(ax: Axes, x: float, kind: str) -> None:
    """A plus where maps are added, two bars where they are put side by side."""
    ax.add_patch(Circle((x, 0), NODE, facecolor="white", edgecolor="black", linewidth=0.8, zorder=3))
    reach = 0.6 * NODE
    bars = [((-reach, reach), (0, 0)), ((0, 0), (-reach, reach))]
    if kind == "concat":
        bars = [((side, side), (-reach, reach)) for side in (-NODE / 4, NODE / 4)]
    for across, along in bars:
        ax.plot([x + a for a in across], along, color="black", linewidth=0.8, zorder=4)


def _figure(rows: list[tuple[str, list[Step]]]) -> Figure:
    """Traced blocks one below another, all at one scale, and the legend."""
    row = TALLEST / max(step.shape[1] for _, steps in rows for step in steps)
    most = max(step.shape[0] for _, steps in rows for step in steps)
    for widest in (WIDEST, 0.6, 0.5, 0.4, 0.3):
        scale = Scale(widest / most, row)
        needed = max(_lay_out(steps, scale)[1] for _, steps in rows)
        if needed <= WIDTH - 2 * MARGIN:
            break
    width = max(needed + 2 * MARGIN, WIDTH)
    heights = [sum(_levels(steps, scale)[1:]) + 0.2 for _, steps in rows]
    kinds = [kind for kind in KINDS if any(step.kind == kind for _, steps in rows for step in steps)]
    kinds = [kind for kind in kinds if kind not in ("slice", "pad")]
    legend, gap = 0.25, 0.15
    height = sum(heights) + gap * (len(rows) - 1) + legend + 2 * MARGIN
    figure, bottom = Figure((width, height)), height - MARGIN
    for n, ((title, steps), h) in enumerate(zip(rows, heights, strict=True)):
        bottom -= h
        ax = figure.add_axes((MARGIN / width, bottom / height, 1 - 2 * MARGIN / width, h / height))
        macs = sum(step.macs for step in steps) / 1e6
        draw(ax, steps, f"({chr(ord('a') + n)}) {title}: {macs:.2f} M multiply-adds", scale)
        bottom -= gap
    handles = [Patch(fc=c, ec="black", lw=0.5, hatch=2 * h, label=name) for c, h, name in (KINDS[kind] for kind in kinds)]
    figure.legend(handles=handles, loc="lower center", ncols=len(kinds), fontsize=FONT, frameon=False, borderpad=0.2)
    return figure


def figure2(block: Block = Block(), channels: int = 36, size: int = 56) -> Figure:
    """MobileNetV2's block, whose t is 6, above the harmonious bottleneck, whose t is 2."""
    ours = HarmoniousBottleneck(channels, channels, 1, 2, block)
    rows = [("Inverted residual, t = 6", InvertedResidual(channels, channels, 1, 6))]
    rows += [(f"Harmonious bottleneck, t = 2, k = {block.k}", ours)]
    return _figure([(title, trace(module, channels, size)) for title, module in rows])


def figure3(block: Block = Block(), depths: tuple[int, ...] = (1, 2, 3), channels: int = 36, size: int = 56) -> Figure:
    """Harmonious bottlenecks of these many contraction units."""
    modules = {k: HarmoniousBottleneck(channels, channels, 1, 2, replace(block, k=k)) for k in depths}
    return _figure([(f"k = {k} ({2**k}{X})", trace(module, channels, size)) for k, module in modules.items()])


def figure4(block: Block = Block(), channels: int = 36, out_channels: int = 72, size: int = 56) -> Figure:
    """The harmonious bottleneck that keeps its input's size and channels, and the one at stride 2 that halves and widens."""
    modules = {s: HarmoniousBottleneck(channels, cout, s, 2, block) for s, cout in ((1, channels), (2, out_channels))}
    return _figure([(f"Stride {s}, k = {block.k}", trace(module, channels, size)) for s, module in modules.items()])
