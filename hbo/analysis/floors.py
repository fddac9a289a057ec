"""Baselines for re-identification: untrained features.

    python -m hbo.analysis.floors --data marketfolder --data_dir DIR --aspect 1 --to floors.csv
        python -m hbo.analysis.floors --data market1501 --data_dir DIR --nets hbonet:0.5 --seeds 0

Each network with the initial weights of `hbo.fit` for that seed, and the colours of an image: a joint
histogram of red, green and blue (8 bins each, so that grey images use 8), and one histogram per channel (64
bins each). The flags are those of `hbo.fit`; queries are ranked as in a run.
"""

import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hbo import config, flags
from hbo.analysis import results
from hbo.analysis.tables import Table
from hbo.config import Run
from hbo.data.sampling import EvalBatches, loader
from hbo.errors import UserError, one_line
from hbo.runs import cluster, naming
from hbo.tasks import SETS, build

NETS = ["hbonet:0.25", "mobilenetv2:0.25", "torchvision:resnet50"]


def joint_histogram(images: Tensor, bins: int = 8) -> Tensor:
    """(B, 3, H, W) uint8 -> (B, bins^3): the share of pixels of each colour."""
    red, green, blue = (images.long() * bins // 256).flatten(2).unbind(1)
    return _shares((red * bins + green) * bins + blue, bins**3)


def channel_histograms(images: Tensor, bins: int = 64) -> Tensor:
    """(B, 3, H, W) uint8 -> (B, 3 * bins): the share of pixels of each level, per channel."""
    levels = (images.long() * bins // 256).flatten(2)  # (B, 3, H * W)
    return torch.cat([_shares(channel, bins) for channel in levels.unbind(1)], 1)


def _shares(values: Tensor, bins: int) -> Tensor:
    counts = torch.zeros(len(values), bins, dtype=torch.double)
    counts.scatter_add_(1, values, torch.ones_like(values, dtype=torch.double))
    return counts / values.shape[1]


def floors(run: Run, nets: list[str], seeds: list[int]) -> list[dict[str, Any]]:
    """One row each: features, seed, dimensions and metrics.

    Args:
        run: a re-identification run, for its data, input and distance.
        nets: names of networks, with a width after the last colon if they have one.
        seeds: of the initial weights.

    Raises:
        UserError: another task; an unknown network.
    """
    import pytorch_lightning as pl

    if run.task != "reid":
        raise UserError(
            f"data={run.data}: floors are for re-identification; use --data market1501 or marketfolder"
        )
    data = build.open_data(run)
    rows: list[dict[str, Any]] = []
    for name, function in (("joint histogram", joint_histogram), ("histogram a channel", channel_histograms)):
        rows.append({"features": name, "seed": None, **_judge(run, data, function)})
    for net in nets:
        for seed in seeds:
            rest = {
                f.name: getattr(run, f.name)
                for f in fields(Run)
                if f.name not in ("net", "width", "divisor", "match_macs")
            }
            own = config.resolve(**rest | {"seed": seed} | _named(net))
            pl.seed_everything(seed, verbose=False)
            task: Any = build.make(own, data).eval()
            with torch.inference_mode():
                found = _judge(own, data, task.retrieved_by)
            rows.append({"features": f"{net}, untrained", "seed": seed, **found})
    return rows


def table(found: Any) -> Any:
    """As a table: mean and standard deviation over the seeds, one line per feature.

    Args:
        found: rows of `floors`, or their CSV file.
    """
    import pandas as pd

    found = pd.DataFrame(results.read_csv(Path(found))) if isinstance(found, str | Path) else found
    lines = [
        {"features": name, "dimensions": int(group["numbers"].iloc[0]), "n": len(group)}
        | {words: results.mean(group[metric]) for metric, words in (("map", "mAP"), ("rank1", "rank-1"))}
        for name, group in found.groupby("features", sort=False)
    ]
    first = found.iloc[0]
    if len(found[["data", "resolution", "aspect"]].drop_duplicates()) > 1:
        raise UserError("floors: rows with several data sets or input sizes; give the rows of one")
    one = {"data": first["data"]} | ({"images": ""} if SETS[first["data"]].by_folder else {})
    data = naming.data_name(one, first.get("folder"))
    where = f"{data}, {first['resolution']} x {round(first['resolution'] / first['aspect'])}"
    notes = ["In percent: mean ± sample standard deviation over n seeds of the initial weights."]
    return Table(f"Untrained features: {where}", pd.DataFrame(lines), notes)


def _named(net: str) -> dict[str, Any]:
    """`hbonet:0.5` and `torchvision:resnet50` as fields."""
    name, _, width = net.rpartition(":")
    try:
        return {"net": name, "width": float(width)}
    except ValueError:
        return {"net": net}


def _judge(run: Run, data: Any, features: Any) -> dict[str, Any]:
    from tqdm import tqdm

    from hbo.metrics import CMCMeanAveragePrecision

    metric, size = CMCMeanAveragePrecision(run.distance, run.rerank), 0
    batches = loader(
        data.val, EvalBatches(len(data.val), run.batch), cluster.data_workers(run, data.val.in_memory)
    )
    for images, shown, index in tqdm(batches, run.net, unit="batch", delay=3, leave=False):
        feature = features(images)
        size = feature.shape[1]
        identity, camera, query = shown.unbind(1)
        metric.update(feature, identity, camera, query.bool(), index)
    return {"numbers": size, **metric.compute()}


def main(argv: list[str] | None = None) -> None:
    """The command line: the flags of `hbo.fit`, networks, seeds, and the CSV file."""
    from hbo.runs.trainer import prepare_process

    parser = flags.make_parser(
        "hbo.analysis.floors", "Untrained and colour features on a re-identification set."
    )
    parser.add_argument(
        "--nets", nargs="+", default=NETS, help=f"Networks, a width after a colon. [{' '.join(NETS)}]"
    )
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[0, 1, 2], help="Seeds of their weights. [0 1 2]"
    )
    parser.add_argument("--to", help="Also write the rows to this CSV file.")
    with one_line():
        given = flags.given(parser, sys.argv[1:] if argv is None else argv)
        nets, seeds, to = given.pop("nets", NETS), given.pop("seeds", [0, 1, 2]), given.pop("to", None)
        for name in ("net", "width", "divisor", "match_macs", "variant", "seed", "backbone_checkpoint"):
            if name in given:
                raise UserError(
                    f"{name}={given[name]}: floors are untrained networks; name them with --nets and --seeds"
                )
        run = config.resolve(**{"data": "marketfolder"} | given)
        prepare_process(run)
        import pandas as pd

        own = {name: getattr(run, name) for name in ("data", "resolution", "aspect")}
        found = pd.DataFrame(floors(run, nets, seeds)).assign(**own, folder=naming.folder_name(run.data_dir))
        if to:
            Path(to).write_text(results.to_csv(found))
        print(table(found).markdown())


if __name__ == "__main__":
    main()
