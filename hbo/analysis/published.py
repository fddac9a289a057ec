"""The paper's tables as data, and the network behind each of their rows."""

import math
from pathlib import Path
from typing import Any

import pandas as pd

from hbo import nets
from hbo.analysis.gains import BASELINE
from hbo.config import Run, resolve
from hbo.errors import UserError
from hbo.nets.counting import Cost
from hbo.tasks import SETS, build

PAPER = Path(__file__).parents[2] / "papers" / "hbonet"
TITLES = {
    1: "The network",
    2: "HBONet and MobileNetV2 at six widths, ImageNet",
    3: "Five resolutions at about 200 M multiply-adds, ImageNet",
    4: "Five resolutions at about 60 M multiply-adds, ImageNet",
    5: "Width against resolution at about 100 M multiply-adds, ImageNet",
    6: "Contraction units, k = 1, 2 and 3 (2x, 4x and 8x), ImageNet",
    7: "HBONet and other networks at about 300 M multiply-adds, ImageNet",
    8: "Detection, SSD on PASCAL VOC 2007",
    9: "Person re-identification on Market-1501",
}
DATA = {8: "PASCAL VOC 2007", 9: "Market-1501"}  # of the other tables: ImageNet
RIVALS = {  # the name in table 7 -> the network here
    "MobileNetV1 (0.75)": "pytorchcv:mobilenet_w3d4",
    "CondenseNet (G=C=8)": "pytorchcv:condensenet74_c8_g8",
    "ShuffleNetV1 (g=3)": "pytorchcv:shufflenet_g3_w3d2",
    "MobileNetV2 (1.0)": "mobilenetv2",
    "IGCV3-D": "pytorchcv:igcv3_w1",
    "ShuffleNetV2": "torchvision:shufflenet_v2_x1_5",
    "HBONet (1.0)": "hbonet",
}
DETECTED = {  # the name in table 8 -> the network below SSD, with its resolution
    "fd-mobilenet": {"net": "pytorchcv:fdmobilenet_w1"},
    "mobilenet": {"net": "pytorchcv:mobilenet_w1", "resolution": 300},
    "pelee": {"net": "pytorchcv:peleenet", "resolution": 304},
}
GAINS = (2, 3, 4, 8, 9)  # tables with a column of gains


def table(number: int) -> pd.DataFrame:
    """One of tables 2 to 9; accuracies in percent, `mmacs` in millions, an absent cell NaN.

    Raises:
        UserError: the package was installed without the checkout's papers/.
    """
    path = PAPER / "published" / f"table{number}.csv"
    if not path.exists():
        raise UserError(
            f"{path}: missing; the published figures are in a checkout, so install with `pip install -e .`"
        )
    return pd.read_csv(path)


def run_of(number: int, row: dict[str, Any]) -> Run:
    """The published training run of a row of tables 2 to 9."""
    if number == 7:
        net = RIVALS[row["model"]]
        return resolve(data="imagenet", net=net, **({"width": 1.0} if ":" not in net else {}))
    if number == 8:
        ours = row["backbone"] in nets.TABLES
        return resolve(
            data="voc",
            **({"net": row["backbone"], "width": float(row["width"])} if ours else DETECTED[row["backbone"]]),
        )
    if number == 9:
        ours = row["backbone"] in nets.TABLES
        net = (
            {"net": row["backbone"], "width": float(row["width"])}
            if ours
            else {"net": f"torchvision:{row['backbone']}"}
        )
        # The paper's runs start from ImageNet's weights, and first train only the classifier for 10 epochs.
        return resolve(data="market1501", backbone_checkpoint="ImageNet's", **net)
    given = {name: int(row[name]) for name in ("divisor", "k") if not pd.isna(row[name])}
    resize = {"eval_resize": 256} if number == 5 else {}
    return resolve(
        data="imagenet",
        net=row["model"],
        width=float(row["width"]),
        resolution=int(row["resolution"]),
        **given,
        **resize,
    )


def runs(number: int) -> list[Run]:
    """The training run of each row of a table."""
    return [run_of(number, row) for row in table(number).to_dict("records")]


def pairs(number: int) -> list[tuple[int, int]]:
    """Indices of HBONet's line and of MobileNetV2's at its budget, if the table has a
    column of gains, else empty.

    Both networks' lines have the same order in these tables.
    """
    if number not in GAINS:
        return []
    names = table(number).rename(columns={"backbone": "model"})["model"].to_list()
    places = [[i for i, name in enumerate(names) if name == net] for net in ("hbonet", BASELINE)]
    return list(zip(*places, strict=True))


def name_of(number: int, row: dict[str, Any]) -> str:
    """A row's name: `hbonet 0.25 at 224, k=1`."""
    if number == 7:
        return row["model"]
    head = row["backbone"] if "backbone" in row else row["model"]
    width = f" {float(row['width'])}" if row.get("width", math.nan) > 0 else ""
    detector = f"{row['detector']} " if "detector" in row else ""
    resolution = f" at {int(row['resolution'])}" if "resolution" in row else ""
    k = f", k={int(row['k'])}" if number == 6 else ""
    return f"{detector}{head}{width}{resolution}{k}"


def cost_of(run: Run) -> Cost | None:
    """Multiply-adds and parameters as the paper counts; None if the network's package is not installed."""
    try:
        return build.cost(run, SETS[run.data].classes or 1000)
    except UserError as error:
        if ":" in run.net and "install" in str(error):
            return None
        raise
