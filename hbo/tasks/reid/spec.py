"""Re-identification (section 4.3, table 9), declared."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hbo.tasks.reid import layout
from hbo.tasks.spec import DataSet, Look, Task, percent, require

MARKET = {  # table 9; `longer` adds the 30 more epochs of width 1.0
    "task": "reid", "resolution": 256, "aspect": 2.0, "epochs": 90, "batch": 32, "optimizer": "amsgrad",
    "lr": 1e-3,
    "weight_decay": 5e-4, "schedule": "step", "milestones": "60", "label_smoothing": 0.1,
}  # fmt: skip


@dataclass(frozen=True)
class ReidFields:
    """Fields of re-identification."""

    aspect: float = 1.0
    """reid: height of the input divided by its width."""
    instances: int | None = None
    """reid: K of P x K sampling: K images of each of batch / K identities in a batch.
    Default: all images in random order."""
    triplet: bool = False
    """reid: add the batch-hard triplet loss, of margin 0.3, to the cross-entropy; needs --instances."""
    bn_neck: bool = False
    """reid: add a batch norm between the feature and the classifier; images are
    then compared by its output."""
    distance: Literal["euclidean", "cosine"] = "euclidean"
    """reid: distance by which the gallery is ranked."""
    rerank: bool = False
    """reid: in evaluation, re-rank by k-reciprocal neighbours (Zhong et al. 2017; k1 20, k2 6, lambda 0.3);
    makes every evaluation slower."""
    flip_features: bool = False
    """reid: in evaluation, average the features of an image and of its mirror image."""


def longer(recipe: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Table 9 trains a width of 1.0 for 30 more epochs, added at the end."""
    from hbo.nets import TABLES  # imports torch, which this declaration avoids

    whole = given.get("net", "hbonet") in TABLES and given.get("width", 0.25) in (1.0, None)
    return recipe | {"epochs": recipe["epochs"] + 30} if whole else recipe


def settle(values: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The classifier is trained first if the backbone comes from a checkpoint."""
    if values.get("classifier_epochs") is not None:
        return {}
    return {"classifier_epochs": 10 if values.get("backbone_checkpoint") else 0}


def check(run: Any) -> None:
    """Check the fields of re-identification.

    Raises:
        UserError: naming the field.
    """
    require(
        run,
        "eval_resize",
        run.eval_resize in (None, run.resolution),
        "re-identification uses the whole image",
    )
    require(run, "aspect", run.aspect >= 0.01, "must be at least 0.01")
    require(
        run,
        "aspect",
        run.size[1] >= 16,
        f"the width, resolution={run.resolution} over it, must be at least 16",
    )
    early, k = run.classifier_epochs or 0, run.instances
    require(run, "classifier_epochs", early >= 0, "must not be negative")
    fresh = early > 0 and run.backbone_checkpoint is None
    require(
        run,
        "classifier_epochs",
        not fresh,
        "needs --backbone_checkpoint: a fresh backbone must be trained",
    )
    require(run, "instances", k is None or k >= 2, "must be at least 2")
    shared = run.batch // run.world
    whole = k is None or (shared % k == 0 and shared >= 2 * k)
    require(
        run,
        "instances",
        whole,
        f"the {shared} images of a batch on a device must be this many images of at least 2 identities",
    )
    require(
        run,
        "triplet",
        k is not None or not run.triplet,
        "needs --instances of at least 2: an anchor needs a positive",
    )


def report(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """mAP, mINP, ranks, and the number of queries."""
    minp = [("mINP", percent(row, "minp"))] if "minp" in row else []  # older rows have none
    lines = [
        ("mAP", percent(row, "map")),
        *minp,
        *((f"rank-{n}", percent(row, f"rank{n}")) for n in (1, 5, 10, 20)),
    ]
    return [*lines, ("queries", f"{row['queries']}, {row['unmatched']} without a match")]


def _look_at_market1501(root: Path | None) -> Look:
    assert root is not None
    return layout.look(layout.market1501(root), layout.MARKET1501)


def _look_at_folder(root: Path | None) -> Look:
    assert root is not None
    return layout.look(root)


REID = Task(
    fields=ReidFields,
    idle=frozenset(["holdout", "limit_batches", "freeze_bn", "val_split"]),
    sets={
        "market1501": DataSet(
            MARKET,
            images=(12936, 3368 + 19732),
            classes=751,
            look=_look_at_market1501,
            marks=("Market-1501-v15.09.15",),
            title="Market-1501",
        ),
        "marketfolder": DataSet(
            MARKET, look=_look_at_folder, count=layout.count, folders=layout.folders, marks=layout.FOLDERS
        ),
    },
    headline="map",
    picture="ranks",
    columns={"map": "mAP", "rank1": "rank-1"},
    report=report,
    more=("minp", "rank5", "rank10", "rank20"),
    new_classes=True,
    settle=settle,
    recipe=longer,
    check=check,
)
