"""The paper's figures 2, 3 and 4, drawn from the modules, so that a switch that
changes a block changes its picture.

    figure3(Block(k=2, upsample="pixelshuffle")).savefig("block.pdf")

`draw` puts the maps of a traced block (`hbo.analysis.tracing`) in a row, each a cuboid with width for
channels and height for rows, with the shortcuts above them. Lengths are in inches.
"""

from dataclasses import replace
from functools import cache
from itertools import pairwise, product

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyArrowPatch, Patch, Polygon
from matplotlib.path import Path
from matplotlib.textpath import TextPath
from matplotlib.transforms import Bbox
from torch import nn

from hbo.analysis.figures import style
from hbo.analysis.tracing import Step, X, trace
from hbo.block import Block, HarmoniousBottleneck, InvertedResidual

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
