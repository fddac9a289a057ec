"""Style of all figures: width and font, and an arm's colour, marker and dashes, the
same in all figures of a page.

    with style.page(width="column", font="serif"):
        figures.save(figures.accuracy(study, "k"), Path("k"), ("pdf",))

Colours are Okabe and Ito's, which colour-blind readers can distinguish, with brown instead of yellow;
markers, dashes and hatches work in grey.
"""

import io
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

from hbo.errors import UserError

WIDTHS = {"column": 3.25, "text": 6.875}  # inches, in a two-column paper
FONTS = ("sans-serif", "serif")
KINDS = ("pdf", "svg", "png")
LEGEND = 40  # characters in a line of a legend
LINE = 0.12  # inches, a line of a label or a legend
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8B5A2B")
MARKERS, DASHES, HATCHES = "osD^vP*", ("-", "--", "-.", ":"), ("", "///", "...", "\\\\\\", "xx", "++", "oo")
GREY = "#666666"
STYLE: Any = {
    "font.size": 8, "legend.fontsize": 7, "legend.title_fontsize": 7, "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True, "legend.frameon": False, "lines.linewidth": 1.2, "lines.markersize": 4.5,
    "errorbar.capsize": 2.5,
    "hatch.linewidth": 0.5,
    "font.serif": ["STIXGeneral", "DejaVu Serif"], "font.sans-serif": ["DejaVu Sans"],
    "mathtext.fontset": "stix",
    "svg.fonttype": "path", "svg.hashsalt": "hbo", "pdf.fonttype": 42,  # an SVG that needs no installed font
}  # fmt: skip


@dataclass(frozen=True)
class Page:
    """Format of the figures: `width` from `WIDTHS`, `font` from `FONTS`."""

    width: str = "text"
    font: str = "sans-serif"


WHOLE = Page()
_page: ContextVar[Page] = ContextVar("page", default=WHOLE)


@contextmanager
def page(width: str = "text", font: str = "sans-serif") -> Iterator[None]:
    """Set width and font of the figures drawn in this context.

    Raises:
        UserError: no such width or font.
    """
    for name, value, known in (("width", width, WIDTHS), ("font", font, FONTS)):
        if value not in known:
            raise UserError(f"{name}={value!r}: choose from {', '.join(known)}")
    token = _page.set(Page(width, font))
    try:
        yield
    finally:
        _page.reset(token)


def font() -> str:
    """The page's font."""
    return _page.get().font


def styled() -> Any:
    """The page's settings of matplotlib, as a context."""
    return rc_context(settings(_page.get()))


def settings(page: Page) -> Any:
    """Matplotlib's settings for a page."""
    return STYLE | {"font.family": page.font}


class Picture(Figure):
    """A figure that a notebook shows as PNG, and that is saved exactly as drawn."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.page = _page.get()

    def _repr_png_(self) -> bytes:
        """In 256 colours, a third of the size: notebooks are committed with their pictures."""
        file = io.BytesIO()
        Image.open(io.BytesIO(as_bytes(self, "png"))).convert("RGB").quantize(256).save(
            file, "png", optimize=True
        )
        return file.getvalue()


def new(height: float) -> Picture:
    """An empty figure as wide as the page, `height` inches high, with automatic layout."""
    return Picture(figsize=(WIDTHS[_page.get().width], height), layout="constrained")


def is_narrow() -> bool:
    """Whether the page is one column."""
    return _page.get().width == "column"


def axes(xlabel: str, ylabel: str, height: float | None = None) -> tuple[Picture, Any]:
    """A figure and its axes."""
    figure = new(height or (2.6 if is_narrow() else 3.0))
    found = figure.add_subplot()
    found.set(xlabel=xlabel, ylabel=ylabel)
    return figure, found


def wrapped(text: str, width: int) -> str:
    """The text in lines of at most `width` characters; what is too long breaks first before an interaction's
    other field, then before what is compared.
    """
    parts = [text]
    for mark in ("more at ", "against ", "than at "):
        whole, parts = parts, []
        for part in whole:
            parts += part.replace(f" {mark}", f"\n{mark}").split("\n") if len(part) > width else [part]
    return "\n".join(line for part in parts for line in textwrap.wrap(part, width, break_on_hyphens=False))


def legend(figure: Figure, handles_of: Any, title: str = "") -> None:
    """Put the legend outside the axes: on the right, or below if the page is one column."""
    handles, labels = handles_of.get_legend_handles_labels()
    labels = [wrapped(label, LEGEND) for label in labels]
    title = title.replace("\n", "; ") if is_narrow() else title
    if is_narrow():
        columns = 2 if max(map(len, labels), default=0) < 24 else 1
        lines = sum(1 + label.count("\n") for label in labels) / columns
        figure.set_figheight(figure.get_figheight() + LINE * max(0, lines - 3))  # or the axes pay for them
        figure.legend(handles, labels, loc="outside lower center", title=title, ncols=columns)
    else:
        figure.legend(handles, labels, loc="outside right upper", title=title)


@dataclass(frozen=True)
class Look:
    """How an arm is drawn."""

    colour: str
    marker: str
    dash: str
    hatch: str


def looks(arms: Iterable[str]) -> dict[str, Look]:
    """Arm -> its look, by its position among the study's arms; 56 arms all look different."""
    found = {}
    for i, arm in enumerate(dict.fromkeys(arms)):
        turn = i + i // len(COLOURS)  # after the last colour, the colours repeat with other markers
        marker, hatch = MARKERS[turn % len(MARKERS)], HATCHES[turn % len(HATCHES)]
        found[arm] = Look(COLOURS[i % len(COLOURS)], marker, DASHES[turn % len(DASHES)], hatch)
    return found


def as_bytes(figure: Figure, kind: str) -> bytes:
    """The figure as pdf, svg or png; the same figure gives the same bytes."""
    dates: dict[str, Any] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}
    file = io.BytesIO()
    with rc_context(settings(getattr(figure, "page", WHOLE))):
        if figure.get_layout_engine() is not None:
            figure.draw_without_rendering()
            figure.set_layout_engine("none")  # lay out once: a second time would move things slightly
        figure.savefig(file, format=kind, dpi=200, metadata=dates[kind])
    return file.getvalue()


def save(figure: Figure, stem: Path, kinds: Sequence[str] = KINDS) -> list[Path]:
    """Write STEM.pdf, .svg and .png, or the given formats."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in kinds]
    for path in paths:
        path.write_bytes(as_bytes(figure, path.suffix[1:]))
    return paths
