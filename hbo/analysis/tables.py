"""The paper's tables 1 to 9: published, computed and measured side by side, as Markdown,
LaTeX (booktabs) and DataFrame.

python -m hbo.analysis.tables 6                    # next to the rows in ablations/
python -m hbo.analysis.tables 2 3 --source runs --format latex --to DIR       # DIR/table2.tex, DIR/table3.tex
"""

from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from hbo import cost, nets
from hbo.analysis import gains, published, results
from hbo.analysis.numbers import ABSENT
from hbo.analysis.printed import SUFFIXES, Table, text, write
from hbo.analysis.printed import Markdown as Markdown
from hbo.analysis.protocols import measured
from hbo.analysis.stats import SHOWN
from hbo.block import HarmoniousBottleneck, InvertedResidual
from hbo.config import Run, resolve
from hbo.errors import UserError, one_line
from hbo.runs import identity
from hbo.tasks import build
from hbo.words import Parser

ACCURACIES = ("top1", "top5", "voc07_map", "map", "rank1")  # the paper's columns
GAINED = ("top1", "voc07_map", "map", "rank1")  # metrics whose gains are shown
COLUMN = {"voc07_map": "map"}  # the rows' name, if different


def paper_table(number: int, rows: pd.DataFrame | None = None) -> Table:
    """One of the paper's tables next to the networks' counted costs and the rows' metrics.

    Args:
        number: 1 to 9.
        rows: from `results.load`; a finished row counts for the line with its network, on any data set, in a
            column that names the data set. Only rows of ImageNet at the paper's resolution and epochs are
            under "measured".

    Raises:
        UserError: no such table.
    """
    if number == 1:
        return stage_table(resolve(data="imagenet", width=1.0))
    if number not in published.TITLES:
        raise UserError(f"table {number}: the paper's are 1 to 9")
    return _published_table(number, rows)


def _published_table(number: int, rows: pd.DataFrame | None) -> Table:
    published_rows, runs = published.table(number).to_dict("records"), published.runs(number)
    lines: list[dict[str, Any]] = [{"": published.name_of(number, row)} for row in published_rows]
    elsewhere: dict[str, None] = {}
    for name in (name for name in ACCURACIES if name in published_rows[0]):
        title, column = SHOWN[name], COLUMN.get(name, name)
        groups = {} if rows is None else measured(rows, runs, column)
        for i, (line, row) in enumerate(zip(lines, published_rows, strict=True)):
            line[f"{title} published"] = ABSENT if pd.isna(row[name]) else f"{row[name]:.1f}"
            line[f"{title} measured"] = ABSENT
            for where, group in ((where, found[i]) for where, found in groups.items() if i in found):
                line[f"{title} {where or 'measured'}"] = said(group[column])
        elsewhere |= dict.fromkeys(f"{title} {where}" for where in groups if where)
        if name in GAINED:
            elsewhere |= _add_gains(
                lines,
                number,
                name,
                {where: {i: g[column] for i, g in f.items()} for where, f in groups.items()},
            )
    absent = []
    for line, row, run in zip(lines, published_rows, runs, strict=True):
        cost = published.cost_of(run)
        counted = f"{cost.macs / 1e6:.1f}" if cost else ABSENT
        if "mmacs" in row:
            line["M multiply-adds published"] = f"{row['mmacs']:.0f}"
            line["counted"] = counted
            line["difference"] = f"{cost.macs / 1e6 - row['mmacs']:+.1f}" if cost else ABSENT
        else:
            line["M multiply-adds counted"] = counted
        line["M parameters counted"] = f"{cost.params / 1e6:.2f}" if cost else ABSENT
        absent += [] if cost else [line[""]]
    frame: Any = pd.DataFrame(lines).fillna(ABSENT)
    frame = frame[[*(c for c in frame.columns if c not in elsewhere), *elsewhere]]
    notes = [
        "Metrics in percent; measured ones are of the last epoch: mean ± sample standard deviation (n seeds)."
    ]
    if number in published.GAINS:
        notes.append(
            "Gain: HBONet minus MobileNetV2 at the same budget of the paper, in points; measured gains have"
            " Welch's 95 % interval."
        )
    if number == 7:
        notes.append(
            "The authors of three networks count or build them differently: see"
            " `python -m hbo.analysis.claims`."
        )
    if number == 8:
        notes.append(
            "Counted: the whole detector, with separable heads and VOC's 20 classes; the paper prints no"
            " costs here."
        )
        notes.append(
            "The last three were published with other heads; here they are backbones of the same SSD, at"
            " their resolution."
        )
    if number == 9:
        notes.append(
            "Counted: the feature extractor, at 256 x 128, without the classifier; the paper prints no costs"
            " here."
        )
        notes.append("At width 0.1 the published cells give a gain of 4.0 mAP; the paper prints 3.9.")
    notes += unknown_images(rows)
    if absent:
        notes.append(
            f"Not counted, as pytorchcv is not installed (`pip install -e '.[zoo]'`): {', '.join(absent)}."
        )
    return Table(f"Table {number}. {published.TITLES[number]}", frame, notes)


def _add_gains(
    lines: list[dict[str, Any]], number: int, name: str, groups: dict[str, dict[int, Any]]
) -> dict[str, None]:
    """Add the gains over MobileNetV2 to HBONet's lines. Returns the columns of other protocols.

    Args:
        lines: of the table, which get the columns.
        number: the table's.
        name: the metric's name in the published table.
        groups: a column's title -> the line's index -> the metric of its runs.
    """
    values, title, pairs = published.table(number)[name], f"{SHOWN[name]} gain", published.pairs(number)
    elsewhere: dict[str, None] = {}
    for line in lines if pairs else []:
        line |= {f"{title} published": ABSENT, f"{title} measured": ABSENT}
    for i, j in pairs:
        lines[i][f"{title} published"] = f"{values[i] - values[j]:+.1f}"
        for where, found in groups.items():
            if i in found and j in found:
                lines[i][f"{title} {where or 'measured'}"] = str(gains.gain(found[i], found[j]))
                elsewhere |= {f"{title} {where}": None} if where else {}
    return elsewhere


def unknown_images(rows: Any) -> list[str]:
    """A note on older rows that do not record their folder of images."""
    found = [] if rows is None else results.identities(rows[rows["state"] == "done"])
    words = {str(one["images"]) for one in found if str(one.get("images")).startswith(identity.UNKNOWN)}
    said = "Some older rows do not record their images, and are not averaged with rows of other folders: "
    return [said + ", ".join(sorted(words)) + "."] if words else []


def said(values: Any) -> str:
    """`74.5 ± 1.3 (n=6)`, in percent."""
    return f"{results.mean(values)} (n={len(values)})"


def stage_table(run: Run) -> Table:
    """Table 1 from the network itself: each stage's input size and operators."""
    net = build.network(run, 1000)
    if not isinstance(net, nets.Net):
        raise UserError(f"net={run.net}: no stage table; use hbonet, hbonet_ir or mobilenetv2_hbo")
    assert run.width is not None
    assert run.divisor is not None
    table = nets.table_of(run.net, run.first_stage)
    shapes: list[tuple[int, ...]] = []
    hooks = [
        m.register_forward_pre_hook(lambda _m, args: shapes.append(tuple(args[0].shape[1:])))
        for m in net.features
    ]
    hooks.append(net.head.register_forward_pre_hook(lambda _m, args: shapes.append(tuple(args[0].shape[1:]))))
    costs = cost.count(net, run.resolution)
    for hook in hooks:
        hook.remove()
    lines: dict[str, dict[str, Any]] = {}
    for label, module, shape in zip([*net.labels, "head"], [*net.features, net.head], shapes, strict=True):
        line = _line(module, shape) | {
            "M multiply-adds": f"{costs[label].macs / 1e6:.1f}",
            "parameters": f"{costs[label].params:,}",
        }
        if label in lines:
            assert line["operator"] == lines[label]["operator"]
            lines[label]["n"] += 1
        else:
            lines[label] = {"stage": label.removeprefix("stage ")} | line
    whole = costs["classifier"]
    lines["classifier"] = {
        "stage": "classifier", "input": f"1x1x{net.classifier.in_features}", "operator": "mean, linear",
        "t": ABSENT,
        "c": net.classifier.out_features, "n": 1, "s": ABSENT, "M multiply-adds": f"{whole.macs / 1e6:.1f}",
        "parameters": f"{whole.params:,}",
    }  # fmt: skip
    rounded = {
        f"{row.channels * run.width:g} to {part.cout}": None
        for part, row in ((part, part.row) for part in nets.layout(table, run.width, run.divisor))
        if part.cout != row.channels * run.width
    }
    notes = [
        "t: hidden channels over input channels; c: output channels; n: blocks; s: stride of the first.",
        f"Total: {costs['total'].macs / 1e6:.1f} M multiply-adds, {costs['total'].params:,} parameters.",
    ]
    if rounded:
        notes.append(f"Channels are rounded to multiples of {run.divisor}: {', '.join(rounded)}.")
    if run.net == "hbonet" and run.first_stage == "release":
        notes.append(
            "The paper prints stage 1 as a harmonious bottleneck; its release has an inverted residual,"
            " which matches table 6's published cost (`--first_stage paper` builds the other)."
        )
    return Table(
        f"Table 1. {published.TITLES[1]}: {run.net}, width {run.width:g}",
        pd.DataFrame(list(lines.values())),
        notes,
    )


def _line(module: nn.Module, shape: tuple[int, ...]) -> dict[str, Any]:
    """A stage's first block, from its modules; `shape` is its input's (C, H, W)."""
    convolutions = [m for m in module.modules() if isinstance(m, nn.Conv2d)]
    channels, height, width = shape
    hidden, stride = ABSENT, convolutions[0].stride[0]
    if isinstance(module, (HarmoniousBottleneck, InvertedResidual)):
        depthwise = next(m for m in module.depthwise if isinstance(m, nn.Conv2d))
        hidden = f"{depthwise.in_channels / channels:g}"
        out = next(reversed(convolutions)).out_channels
        if isinstance(module, HarmoniousBottleneck):
            operator = f"harmonious bottleneck, k = {module.k}"
            stride, out = module.stride, module.main_channels + module.concat_channels
        else:
            operator, stride = "inverted residual", depthwise.stride[0]
    else:
        kernel = convolutions[0].kernel_size[0]
        operator, out = f"conv {kernel}x{kernel}", convolutions[0].out_channels
        operator += "" if any(isinstance(m, nn.ReLU6) for m in module.modules()) else ", linear"
    return {
        "input": f"{height}x{width}x{channels}",
        "operator": operator,
        "t": hidden,
        "c": out,
        "n": 1,
        "s": stride,
    }


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = Parser(prog="python -m hbo.analysis.tables", description="The paper's tables.")
    parser.add_argument("number", type=int, nargs="+", choices=range(1, 10), metavar="1..9")
    parser.add_argument(
        "--source", default="ablations", help="Folder of runs, CSV, folder of CSVs, or wandb:ENTITY/PROJECT."
    )
    parser.add_argument("--format", choices=tuple(SUFFIXES), default="markdown")
    parser.add_argument(
        "--to", type=Path, help="Folder for one file per table, such as tableN.tex. [print them]"
    )
    args = parser.parse_args(argv)
    with one_line():
        rows = results.load(args.source) if set(args.number) != {1} else None
        for number in args.number:
            table = paper_table(number, rows)
            print(
                write(table, args.to / f"table{number}", args.format)
                if args.to
                else text(table, args.format).rstrip()
            )


if __name__ == "__main__":
    main()
