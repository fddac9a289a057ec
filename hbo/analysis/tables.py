"""The paper's tables 1 to 9: published, computed and measured side by side, as Markdown, LaTeX (booktabs) and DataFrame.

python -m hbo.analysis.tables 6                    # beside the rows in ablations/
python -m hbo.analysis.tables 2 3 --source runs --format latex --to DIR       # DIR/table2.tex, DIR/table3.tex
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from hbo import cost, nets
from hbo.analysis import published, results
from hbo.analysis.numbers import ABSENT
from hbo.analysis.printed import SUFFIXES, Table, text, write
from hbo.analysis.printed import Markdown as Markdown
from hbo.analysis.stats import SHOWN
from hbo.block import HarmoniousBottleneck, InvertedResidual
from hbo.config import Run, content, resolve
from hbo.errors import UserError, one_line
from hbo.runs import identity, naming
from hbo.runs.identity import Identity
from hbo.tasks import build
from hbo.words import Parser

ACCURACIES = ("top1", "top5", "voc07_map", "map", "rank1")  # the paper's columns
COLUMN = {"voc07_map": "map"}  # the rows' name, where it is another


def paper_table(number: int, rows: pd.DataFrame | None = None) -> Table:
    """One of the paper's tables beside what the networks cost and what the rows have.

    Args:
        number: 1 to 9.
        rows: of `results.load`; a finished row counts for a line where its network is the line's, on whatever data set,
            in a column that names it. Only rows of ImageNet at the paper's resolution and epochs stand under "measured".

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
    absent = []
    for line, row, run in zip(lines, published_rows, runs, strict=True):
        if run is not None:
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
    notes = ["Accuracies in percent; mean ± sample deviation (n seeds) of the last epoch where measured."]
    if number == 8:
        notes.append("Counted: the whole detector, with separable heads and VOC's 20 classes; the paper prints no costs here.")
    if number == 9:
        notes.append("Counted: what makes a feature, at 256 x 128, without the classifier; the paper prints no costs here.")
    notes += unknown_images(rows)
    if absent:
        notes.append(f"Not counted, as pytorchcv is not installed (`pip install -e '.[zoo]'`): {', '.join(absent)}.")
    return Table(f"Table {number}. {published.TITLES[number]}", frame, notes)


def unknown_images(rows: Any) -> list[str]:
    """A note where rows do not say which folder of images they are of: written before it was recorded."""
    found = [] if rows is None else results.identities(rows[rows["state"] == "done"])
    words = {str(one["images"]) for one in found if str(one.get("images")).startswith(identity.UNKNOWN)}
    said = "Which images some rows are of was not recorded when they were written; they are averaged with no other folder's: "
    return [said + ", ".join(sorted(words)) + "."] if words else []


def said(values: Any) -> str:
    """`74.5 ± 1.3 (n=6)`, in percent."""
    return f"{results.mean(values)} (n={len(values)})"


def measured(rows: Any, runs: Sequence[Run | None], metric: str) -> dict[str, dict[int, Any]]:
    """Finished rows of the lines' networks: a column's title -> the line's place -> its rows, one a seed.

    A row stands on a line if it has the line's network, switch by switch, and the line's resolution where the lines differ in it.
    A column is a protocol: its rows' identities differ from their lines' in the same way. The column "" has the paper's protocol;
    the title of any other names the data set and whatever distinguishes it from the other columns. Rows that report held-out
    training images tuned a recipe and are left out.

    Args:
        rows: of `results.load`.
        runs: what a table's lines published, None for a line without a network.
        metric: the column that must be there.

    Raises:
        UserError: two rows are one run with one seed.
    """
    if metric not in rows:
        return {}
    done = rows[(rows["state"] == "done") & rows[metric].notna() & (rows["holdout"] == 0)].drop_duplicates("key")
    every = results.identities(done)
    said_by_line = [*Run.BACKBONE, "task"]
    if len({run.resolution for run in runs if run}) > 1:
        said_by_line.append("resolution")
    columns: dict[str, dict[int, list[int]]] = {}
    for i, run in enumerate(runs):
        line = content(vars(run)) if run else None
        for j, one in enumerate(every):
            if line is None or any(identity.value(one, n) != identity.value(line, n) for n in said_by_line):
                continue
            apart = _apart(one, line, said_by_line)
            if apart.keys() <= {"resolution", "eval_resize", "cached_side"} and "resolution" in apart:
                continue  # the paper's protocol at the resolution of another table
            columns.setdefault(json.dumps(apart, sort_keys=True, default=str), {}).setdefault(i, []).append(j)
    found = {}
    names = naming.data_names(done.to_dict("records"))
    titles = _titles([json.loads(c) for c in columns], list(columns.values()), every, names)
    for title, lines in zip(titles, columns.values(), strict=True):
        for i, places in lines.items():
            for more, group in _by_backbone([every[j] for j in places], done.iloc[places]):
                cell = found.setdefault(f"{title[:-1] or 'by the paper (its protocol'}{more})" if more else title, {})
                assert i not in cell, f"{title}: two protocols under one title"
                cell[i] = results.check_seeds(group)
    return found


def _apart(one: Identity, line: Identity, said_by_line: Sequence[str]) -> dict[str, Any]:
    """In what a row's protocol is not its line's; what goes by the resolution is compared as such."""
    one, line = _relative(one, said_by_line), _relative(line, said_by_line)
    if line.get("task", "classify") != "classify":  # the paper's start from ImageNet's weights
        line["backbone"] = one.get("backbone", "a checkpoint")
    return {n: identity.value(one, n) for n in one.keys() | line.keys() if identity.value(one, n) != identity.value(line, n)}


def _relative(one: Identity, said_by_line: Sequence[str]) -> Identity:
    size, resize = identity.value(one, "resolution"), identity.value(one, "eval_resize")
    share = {size: "the whole image", round(size / 0.875): "the middle 0.875"}.get(resize, resize)
    one = {name: what for name, what in one.items() if name not in {*said_by_line, "seed"} or name in ("task", "resolution")}
    if "resolution" in said_by_line:
        one.pop("resolution", None)
    side = (
        {"cached_side": "eval_resize" if one["cached_side"] == resize else one["cached_side"]} if "cached_side" in one else {}
    )
    return one | {"eval_resize": share} | side


def _titles(
    aparts: list[dict[str, Any]], lines: list[dict[int, list[int]]], every: list[Identity], names: list[str]
) -> list[str]:
    """A title a column: the images, their size, the epochs; and of columns that share images and epochs, what else differs."""
    rows = [[every[j] for places in found.values() for j in places] for found in lines]
    data = [next(names[j] for places in found.values() for j in places) for found in lines]
    sets, heads = [], []
    for apart, ones, name in zip(aparts, rows, data, strict=True):
        shared = {n: identity.value(ones[0], n) for n in ("resolution", "epochs") if n not in identity.varying(ones)}
        size = [f"{shared[n]} {unit}" for n, unit in (("resolution", "px"), ("epochs", "epochs")) if n in shared]
        weights = ["random weights"] * ("backbone" in apart and "backbone" not in ones[0])
        sets.append((name, shared.get("epochs"), *weights))
        heads.append([*size, *weights])
    titles = []
    for apart, one_set, head, ones in zip(aparts, sets, heads, rows, strict=True):
        same = [other for other, its in zip(aparts, sets, strict=True) if its == one_set]
        differ = [
            n
            for n in [*identity.FIELDS, *identity.EXTRAS]
            if n not in ("data", "images")  # which the name says
            and len({str(other.get(n)) for other in same}) > 1
            and not (n == "resolution" and f"{identity.value(ones[0], n)} px" in head)
        ]
        # What goes by the resolution is said as such where a column has several.
        more = [identity.say(n, apart.get(n) if n in identity.varying(ones) else identity.value(ones[0], n)) for n in differ]
        titles.append(f"on {one_set[0]} ({', '.join([*head, *more])})" if apart else "")
    return titles


def _by_backbone(ones: list[Identity], group: Any) -> list[tuple[str, Any]]:
    """The rows of a cell, split by the checkpoint that they started from."""
    digests = [one.get("backbone") for one in ones]
    if len(set(digests)) < 2:
        return [("", group)]
    return [(f", backbone {d}", group[[other == d for other in digests]]) for d in dict.fromkeys(digests)]


def stage_table(run: Run) -> Table:
    """Table 1 from the network itself: each stage's input as it arrives there, and what its modules are made of."""
    net = build.network(run, 1000)
    if not isinstance(net, nets.Net):
        raise UserError(f"net={run.net}: no table of stages; take hbonet, hbonet_ir or mobilenetv2_hbo")
    assert run.width is not None
    assert run.divisor is not None
    table = nets.table_of(run.net, run.first_stage)
    shapes: list[tuple[int, ...]] = []
    hooks = [m.register_forward_pre_hook(lambda _m, args: shapes.append(tuple(args[0].shape[1:]))) for m in net.features]
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
        "stage": "classifier", "input": f"1x1x{net.classifier.in_features}", "operator": "mean, linear", "t": ABSENT,
        "c": net.classifier.out_features, "n": 1, "s": ABSENT, "M multiply-adds": f"{whole.macs / 1e6:.1f}",
        "parameters": f"{whole.params:,}",
    }  # fmt: skip
    rounded = {
        f"{row.channels * run.width:g} as {part.cout}": None
        for part, row in ((part, part.row) for part in nets.layout(table, run.width, run.divisor))
        if part.cout != row.channels * run.width
    }
    notes = [
        "t: hidden channels over input channels; c: output channels; n: blocks; s: stride of the first.",
        f"In all {costs['total'].macs / 1e6:.1f} M multiply-adds, {costs['total'].params:,} parameters.",
    ]
    if rounded:
        notes.append(f"Channels are multiples of {run.divisor}: {', '.join(rounded)}.")
    if run.net == "hbonet" and run.first_stage == "release":
        notes.append(
            "The paper prints stage 1 as a harmonious bottleneck; its release has an inverted residual, and table 6's"
            " published cost is that one's (`--first_stage paper` builds the other)."
        )
    return Table(f"Table 1. {published.TITLES[1]}: {run.net}, width {run.width:g}", pd.DataFrame(list(lines.values())), notes)


def _line(module: nn.Module, shape: tuple[int, ...]) -> dict[str, Any]:
    """A stage's first block, read off its modules; `shape` is its input's (C, H, W)."""
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
    return {"input": f"{height}x{width}x{channels}", "operator": operator, "t": hidden, "c": out, "n": 1, "s": stride}


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = Parser(prog="python -m hbo.analysis.tables", description="The paper's tables.")
    parser.add_argument("number", type=int, nargs="+", choices=range(1, 10), metavar="1..9")
    parser.add_argument("--source", default="ablations", help="Folder of runs, CSV, folder of CSVs, or wandb:ENTITY/PROJECT.")
    parser.add_argument("--format", choices=tuple(SUFFIXES), default="markdown")
    parser.add_argument("--to", type=Path, help="Folder: a file a table, tableN.tex. Left out: print them.")
    args = parser.parse_args(argv)
    with one_line():
        rows = results.load(args.source) if set(args.number) != {1} else None
        for number in args.number:
            table = paper_table(number, rows)
            print(write(table, args.to / f"table{number}", args.format) if args.to else text(table, args.format).rstrip())


if __name__ == "__main__":
    main()
