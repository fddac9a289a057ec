"""A study's page needs no other file, says what the study says, and works in a browser, light or dark, at any
width.
"""

import base64
import html
import json
import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from browser import CHROMIUM, Page, browser
from conftest import call

from hbo.analysis import dots, report, study
from hbo.analysis.numbers import is_number
from hbo.analysis.printed import Table

NAMES = ("contraction", "mobilenetv2")
IT = study.read(*NAMES)
MADE = {  # cells as tables have them, in sorted order
    "mean": ["—", "9.5 ± 20.1", "71.2 ± 0.4", "71.3", "100.0 ± 0.0"],
    "p": ["<0.001", "0.001", "0.034", "1.000", "—"],
    "interval": ["-12.0 to -3.0", "-2.1 to +1.0", "+0.5 to +1.5", "+10.0 to +11.0", "—"],
    "count": ["7", "928", "1,168", "12,000", "1,234,567"],
    "arm": ["base", "k=2", "k=10", "k=10 lr=0.1", "mobilenetv2"],
}
SHUFFLED = [3, 0, 4, 2, 1]


class Text(HTMLParser):
    """What a reader sees: cell by cell and line by line."""

    PARTS = ("td", "th", "p", "li", "h1", "h2", "h3")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag in self.PARTS:
            self.inside = True
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag not in self.PARTS

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.cells[-1] += data


@cache
def page_of(*names: str) -> str:
    """The page of these studies, drawn once."""
    return report.page(study.read(*names))


def seen(page: str) -> list[str]:
    return [" ".join(cell.replace("\N{NO-BREAK SPACE}", " ").split()) for cell in Text(page).cells]


@pytest.mark.slow
def test_the_page_is_self_contained_and_has_the_studys_results(tmp_path):
    """No address and no other file; it has the question, the conclusion, every cell of the tables, and how
    the study was run.
    """
    out, _ = call("hbo.analysis.report", *NAMES, "--to", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert out.strip() == f"{tmp_path / 'page.html'}: {IT.conclusion()}"
    assert not re.search(r"""(?:src|href)=["'](?!data:)|url\(|@import|fetch\(|https?:""", page)
    images, cells = IT.images(), seen(page)
    assert images is not None
    for text in (IT.question(), IT.conclusion(), *IT.findings()):
        assert " ".join(text.split()) in cells
    for table in (IT.table(), IT.differences(), images, IT.provenance()):
        assert {*table.frame.astype(str).to_numpy().ravel(), *filter(None, table.frame.columns)} <= set(cells)
    for name in NAMES:
        assert f"<code>python -m hbo.sweep run sweeps/{name}.yaml</code>" in page
    assert page_of(*NAMES) == page  # the same rows give the same page


def test_a_picture_needs_no_font_and_has_alternative_text():
    page = page_of(*NAMES)
    pictures = re.findall(r'<img alt="([^"]+)" src="data:image/svg\+xml;base64,([^"]+)"', page)
    assert len(pictures) >= 3
    assert any(" against k" in html.unescape(said) for said, _ in pictures)
    for _, data in pictures:
        drawn = base64.b64decode(data).decode()
        assert "<path" in drawn
        assert not re.search(r"<text|font-family|@font-face", drawn)


def test_a_dot_is_at_its_runs_metric():
    found = dots.dots(IT, dict.fromkeys(IT.arms, "#000000"))
    ticks = [(float(tick["said"]), tick["at"]) for tick in found["ticks"]]
    assert len(ticks) >= 2
    (low, left), *_, (high, right) = ticks
    rows = {row["key"]: row for row in IT.done.to_dict("records")}
    placed = [(found["told"][dot["run"]], dot, arm["name"]) for arm in found["arms"] for dot in arm["dots"]]
    assert {told["key"] for told, *_ in placed} == set(rows)
    assert len(placed) == len(rows)
    for told, dot, arm in placed:
        row = rows[told["key"]]
        assert told["said"].startswith(
            f"{row['arm']}, seed {row['seed']}: top-1 {100 * row['top1']:.2f} %, key {row['key']}"
        )
        assert arm == row["arm"]
        at = left + (100 * row["top1"] - low) / (high - low) * (right - left)
        assert dot["at"] == pytest.approx(at, abs=0.02)
        assert 0 <= dot["at"] <= 100
        near = [d for t, d, a in placed if a == arm and d is not dot and d["top"] == dot["top"]]
        assert all(abs(d["at"] - dot["at"]) >= dots.APART for d in near)


def test_a_short_name_has_its_full_name():
    page, it = page_of("elpv_tuning"), study.read("elpv_tuning")
    assert max(map(len, it.arms)) < 60
    full = re.search(r'<td title="([^"]+)">base</td>', page)
    assert full is not None
    assert "resolution=96" in full[1]
    assert "weight_decay=4e-05" in full[1]


# ------------------------------------------------------------ in a browser


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with browser(tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    """The pages of studies of each task and with long names, and one with a made-up table."""
    folder = tmp_path_factory.mktemp("pages")
    found = {}
    for names in (NAMES, ("detection_bccd",), ("reid_coil20",), ("elpv_tuning",)):
        found[names[0]] = folder / f"{names[0]}.html"
        found[names[0]].write_text(page_of(*names))
    made = study.read("contraction")
    frame = pd.DataFrame(MADE).iloc[SHUFFLED]
    made.table = lambda: Table("Made up", frame)
    found["made"] = folder / "made.html"
    found["made"].write_text(report.page(made))
    return found


def test_numeric_cells_are_recognised():
    for name, column in MADE.items():
        assert all(map(is_number, column)) == (name != "arm")


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("name", ["contraction", "detection_bccd", "reid_coil20", "elpv_tuning"])
def test_the_page_is_accessible(chromium: Page, pages, name, width, dark):
    """Nothing exceeds the window, no number is split, all text has contrast, pictures are on white."""
    chromium.open(pages[name], width, dark)
    assert chromium.run("innerWidth") == width
    assert chromium.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert chromium.run(BROKEN) == []
    assert chromium.run(FAINT) == []
    background = chromium.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background))) < 3 * 60) == dark
    assert set(chromium.run("[...document.images].map(i => getComputedStyle(i).backgroundColor)")) == {
        "rgb(255, 255, 255)"
    }
    assert chromium.run(
        "[...document.images].every(i => i.complete && i.naturalWidth > 100 && i.clientWidth > 500)"
    )


BROKEN = """[...document.querySelectorAll("td.number")].filter(cell => {
  const range = document.createRange();
  range.selectNodeContents(cell);
  return new Set([...range.getClientRects()].map(r => Math.round(r.top))).size > 1;
}).map(cell => cell.textContent)"""
FAINT = """(() => {
  const numbers = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const colour = numbers(getComputedStyle(e).backgroundColor);
      if (colour[3] === undefined || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const faint = [], words = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
  while (words.nextNode()) {
    const element = words.currentNode.parentElement;
    if (!words.currentNode.textContent.trim() || element.tagName === "SCRIPT") continue;
    const [a, b] = [numbers(getComputedStyle(element).color), behind(element)].map(light);
    if ((Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 4.5) faint.push(element.textContent);
  }
  return faint;
})()"""


def column(chromium: Page, i: int) -> list[str]:
    return chromium.run(
        f"[...document.querySelector('table').tBodies[0].rows].map(row => row.cells[{i}].textContent)"
    )


def at(chromium: Page, script: str) -> tuple[float, float]:
    """The middle of an element, scrolled into the window."""
    place = f"(e => {{ e.scrollIntoView({{block: 'center'}}); const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; }})({script})"
    x, y = chromium.run(place)
    return x, y


@pytest.mark.slow
@pytest.mark.parametrize("name", MADE)
def test_a_click_on_a_column_sorts(chromium: Page, pages, name):
    """Ascending, descending, original order; by mean, smallest p first, dashes last."""
    chromium.open(pages["made"], 1280)
    i, head = (
        list(MADE).index(name),
        f"document.querySelectorAll('table')[0].tHead.rows[0].cells[{list(MADE).index(name)}]",
    )
    before = column(chromium, i)
    up = [cell for cell in MADE[name] if cell != "—"]
    dashes = ["—"] * (len(before) - len(up))
    assert before == [MADE[name][j] for j in SHUFFLED]
    for order, said in (
        ([*up, *dashes], "ascending"),
        ([*up[::-1], *dashes], "descending"),
        (before, "none"),
    ):
        chromium.point(*at(chromium, f"{head}.querySelector('button')"), click=True)
        assert column(chromium, i) == order
        assert chromium.run(f"{head}.ariaSort") == said


@pytest.mark.slow
def test_a_column_sorts_by_keyboard(chromium: Page, pages):
    chromium.open(pages["made"], 400)
    chromium.run("document.querySelector('.scroll').focus()")
    for _ in range(2):  # to the second header
        chromium.press("Tab")
    chromium.press("Enter")
    assert column(chromium, 1) == MADE["p"]


@pytest.mark.slow
@pytest.mark.parametrize("width", [400, 1280])
def test_a_dot_shows_its_run(chromium: Page, pages, width):
    """It shows its key and command, by mouse and by keyboard."""
    chromium.open(pages["contraction"], width)
    told = "document.querySelector('.told').textContent"
    runs = json.loads(chromium.run("document.querySelector('.runs script').textContent"))
    assert len(runs) == len(IT.done)
    chromium.point(*at(chromium, "document.querySelectorAll('.dot')[3]"))
    assert chromium.run(told) == runs[3]["said"] + runs[3]["command"]
    assert runs[3]["key"] in runs[3]["said"]
    assert runs[3]["command"].startswith("python -m hbo.fit ")
    chromium.run("document.querySelectorAll('.dot')[3].focus()")
    for i in (4, 5):
        chromium.press("ArrowRight")
        assert chromium.run("Number(document.activeElement.dataset.run)") == i
        assert chromium.run(told) == runs[i]["said"] + runs[i]["command"]
    # One Tab stop for all runs.
    assert chromium.run("document.querySelectorAll('.dot[tabindex=\"0\"]').length") == 1
    assert chromium.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_the_page_says_how_many_runs_had_which_instructions(tmp_path):
    """Sums of floats are in another order with others; rows of before November 28, 2026 do not say."""
    rows = study.read("pairing").done.head(9)
    rows = rows.assign(instructions=[None] * 4 + ["AVX512"] * 3 + ["AVX2"] * 2)
    rows.to_csv(tmp_path / "pairing.csv", index=False)
    shown = dict(study.read("pairing", source=tmp_path).provenance().frame.iloc[:, :2].to_numpy().tolist())
    assert shown["instructions"] == "not recorded (4), AVX512 (3), AVX2 (2)"
    assert "instructions" not in IT.provenance().frame.iloc[:, 0].tolist()
