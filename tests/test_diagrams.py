"""The paper's figures 2 to 4: their blocks and costs, and no text overlaps."""

import itertools

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from hbo.analysis.diagrams import figure2, figure3, figure4
from hbo.analysis.figures import style
from hbo.block import Block, HarmoniousBottleneck, InvertedResidual
from hbo.errors import UserError
from hbo.nets import counting


def test_a_map_too_small_is_an_error():
    with pytest.raises(UserError, match="too small for 3 contraction units"):
        figure4(size=4)


FIGURES = {
    "figure2": (figure2, {}),
    "figure3": (figure3, {}),
    "figure4": (figure4, {}),
    "k=0 to 3": (figure4, {"depths": (0, 1, 2, 3)}),
    "pixelshuffle": (figure4, {"block": Block(upsample="pixelshuffle")}),
    "transposed": (figure3, {"block": Block(k=2, upsample="transposed", scheme="uniform")}),
    "no residual": (figure3, {"block": Block(k=2, residual=False, contract="avgpool")}),
    "no concat": (figure3, {"block": Block(k=2, concat_ratio=0.0)}),
    "neither": (figure3, {"block": Block(k=2, concat_ratio=0.0, residual=False)}),
    "concat 0.75": (figure3, {"block": Block(concat_ratio=0.75, contract="blurpool", scheme="paper")}),
    "odd": (figure3, {"block": Block(k=3, kernel=7), "size": 57, "out_channels": 100}),
    "wide": (figure2, {"block": Block(k=3, upsample="bilinear"), "channels": 288, "size": 112}),
    "narrow": (figure3, {"block": Block(k=2), "channels": 4, "out_channels": 6, "size": 14}),
}


@pytest.mark.parametrize(
    ("name", "font"), [*((name, "sans-serif") for name in FIGURES), ("figure3", "serif"), ("wide", "serif")]
)
def test_text_is_inside_the_canvas_and_does_not_overlap(name, font):
    make_figure, arguments = FIGURES[name]
    with style.page(font=font):
        figure = make_figure(**arguments)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text()]
    extents = [(t.get_text(), t.get_window_extent(canvas.get_renderer())) for t in texts]
    assert len(extents) > 15
    # The text width of a paper.
    assert figure.get_figwidth() == 6.875 or (name == "wide" and figure.get_figwidth() < 8)
    assert figure.get_figheight() <= 8.5  # and its text height, minus a caption
    assert all(t.get_fontsize() >= 7 for t in texts)
    for text, box in extents:
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= figure.bbox.width, text
        assert box.y1 <= figure.bbox.height, text
    for (one, a), (other, b) in itertools.combinations(extents, 2):
        assert a.x1 <= b.x0 or b.x1 <= a.x0 or a.y1 <= b.y0 or b.y1 <= a.y0, (one, other)


def test_a_figure_labels_the_parts_of_its_blocks():
    drawn = [t.get_text().replace("\N{MULTIPLICATION SIGN}", "x") for t in figure3(Block(k=2)).findobj(Text)]
    labels = {
        "first 18 channels",
        "last 18 channels",
        "EltAdd",
        "Concat",
        "AvgPool 2x2",
        "Upsample\nx4\nnearest",
        "72x\n14x14",
    }
    assert labels <= set(drawn)


def titles(figure) -> list[str]:
    return [next(t.get_text() for t in ax.texts if t.get_weight() == "bold") for ax in figure.axes]


def test_figures_3_and_4_are_the_papers():
    """Figure 3: inverted residual and harmonious bottleneck, each at both strides. Figure 4: k contraction
    units in sequence.
    """
    kinds = ["Inverted residual, t = 6, stride 1", "Inverted residual, t = 6, stride 2"]
    kinds += [
        "Harmonious bottleneck, t = 2, k = 1, stride 1",
        "Harmonious bottleneck, t = 2, k = 1, stride 2",
    ]
    assert [title.split(": ")[0] for title in titles(figure3())] == [
        f"({'abcd'[n]}) {kind}" for n, kind in enumerate(kinds)
    ]
    assert [title[4:9] for title in titles(figure4())] == ["k = 1", "k = 2", "k = 3"]
    for figure, modules in (
        (
            figure3(),
            [
                InvertedResidual(36, 36, 1, 6),
                InvertedResidual(36, 72, 2, 6),
                HarmoniousBottleneck(36, 36, 1, 2, Block()),
                HarmoniousBottleneck(36, 72, 2, 2, Block()),
            ],
        ),
        (figure4(), [HarmoniousBottleneck(36, 36, 1, 2, Block(k=k)) for k in (1, 2, 3)]),
    ):
        counted = [
            counting.pass_through(module, torch.zeros(1, 36, 56, 56))[0]["Global"].macs for module in modules
        ]
        assert [title.split(": ")[1] for title in titles(figure)] == [
            f"{macs / 1e6:.2f} M multiply-adds" for macs in counted
        ]


def test_notebooks_display_a_figure():
    assert figure3()._repr_png_().startswith(b"\x89PNG")
