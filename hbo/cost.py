"""Costs of a network, stage by stage; the counting is in hbo/nets/counting.py.

    python -m hbo.cost --k 2 --width 0.25            # a table, stage by stage
    python -m hbo.cost --net mobilenetv2 --resolution 192 --json
    python -m hbo.cost --task detect --head full     # the whole detector, at 320 x 320 with VOC's 20 classes
    python -m hbo.cost --task reid --width 0.5       # the feature extractor, at 256 x 128

In Python: `hbo.cost.macs(model, 224)`, `hbo.cost.count(model, 224)`.
"""

import json
import sys
from dataclasses import asdict

from hbo import config, flags, tasks
from hbo.errors import one_line
from hbo.nets.counting import Cost, count, macs, parameters
from hbo.tasks import build
from hbo.text import aligned

__all__ = ["Cost", "count", "macs", "main", "parameters", "table"]


def table(costs: dict[str, Cost]) -> str:
    """The costs as text, one stage a line."""
    head = ("stage", "M multiply-adds", "parameters", "activations MB", "element-wise M")
    rows = [
        (
            name,
            f"{c.macs / 1e6:.3f}",
            f"{c.params:,}",
            f"{c.activation_bytes / 2**20:.3f}",
            f"{c.elementwise / 1e6:.3f}",
        )
        for name, c in costs.items()
    ]
    lines = aligned([head, *rows], right=range(1, len(head)))
    return "\n".join([*lines[:-1], "-" * len(lines[0]), lines[-1]])


def main(argv: list[str] | None = None) -> None:
    """The command line: the flags of `hbo.fit`, and `--json`."""
    parser = flags.make_parser(
        "hbo.cost",
        "Costs of a network, at 224 x 224 with 1000 classes unless --resolution or --data is given.",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="Print JSON: totals, stages, and the depth and ratio of each block as built.",
    )
    with one_line():
        given = flags.given(parser, sys.argv[1:] if argv is None else argv)
        as_json = given.pop("json", False)
        run = config.resolve(**given)
        # The paper's input and classes by default: ImageNet's, and VOC's for detection.
        resolution = run.resolution if {"resolution", "data", "data_dir", "task"} & given.keys() else 224
        task = tasks.TASKS[run.task]
        known = {"data", "data_dir"} & given.keys() and (
            not tasks.SETS[run.data].by_folder or run.data_dir is not None
        )
        classes = tasks.counts(run.data, run.data_dir)[2] if known else task.paper_classes
        net = build.network(run, classes)
        size = (resolution, round(resolution / run.aspect))
        costs = count(net, size)
    blocks = [asdict(block) for block in getattr(net, "built", [])]
    if as_json:
        head = {name: getattr(run, name) for name in ("task", "net", "width", "divisor", "k")} | {
            "resolution": resolution,
            "num_classes": classes,
        }
        by_stage = {name: asdict(cost) for name, cost in costs.items() if name != "total"}
        print(json.dumps(head | asdict(costs["total"]) | {"stages": by_stage, "blocks": blocks}))
        return
    of = "without its classifier" if task.new_classes else f"{classes} classes"
    print(f"{config.describe_net(run)}; {size[0]} x {size[1]}, {of}\n\n{table(costs)}\n")
    print("Blocks as built:", *(_line(block) for block in blocks if block["block"] == "hb"), sep="\n  ")


def _line(block: dict) -> str:
    return (
        f"stage {block['stage']}: {block['cin']} -> {block['cout']}, stride {block['stride']}, k"
        f" {block['depth']}, {block['concat_channels']} concatenated, {block['residual_channels']} residual"
    )


if __name__ == "__main__":
    main()
